//! The ring against a plain vector: order, bounds, drops, tails and holds.

use proptest::prelude::*;

use super::*;

fn all(reader: &mut Reader) -> (Vec<u8>, u64) {
    let (mut bytes, mut dropped) = (Vec::new(), 0);
    while let Some(chunk) = reader.try_next() {
        dropped += chunk.dropped;
        bytes.extend_from_slice(&chunk.data);
    }
    (bytes, dropped)
}

#[tokio::test]
async fn what_was_written_is_read_by_every_reader() {
    let log = Log::new(4096);
    log.open();
    let mut early = log.reader(From::Oldest);
    log.append(Stream::Stdout, b"one\n").await;
    log.append(Stream::Stderr, b"two\n").await;
    for reader in [&mut early, &mut log.reader(From::Oldest)] {
        assert_eq!(reader.try_next().unwrap().data, "one\n");
        let second = reader.try_next().unwrap();
        assert_eq!((second.stream, &second.data[..]), (Stream::Stderr, &b"two\n"[..]));
        assert_eq!(reader.try_next(), None);
    }
    assert_eq!(all(&mut log.reader(From::Now)).0, b"");
}

#[tokio::test]
async fn a_tail_is_counted_in_lines() {
    let log = Log::new(4096);
    log.append(Stream::Stdout, b"a\nb\nc\n").await;
    for (lines, expected) in [(0, ""), (1, "c\n"), (2, "b\nc\n"), (3, "a\nb\nc\n"), (9, "a\nb\nc\n")] {
        assert_eq!(all(&mut log.reader(From::LastLines(lines))).0, expected.as_bytes(), "{lines}");
    }
    log.append(Stream::Stdout, b"no newline").await;
    assert_eq!(all(&mut log.reader(From::LastLines(1))).0, b"no newline");
}

#[tokio::test]
async fn lost_bytes_are_counted_and_memory_is_bounded() {
    let log = Log::new(4096);
    let mut slow = log.reader(From::Oldest);
    for _ in 0..100 {
        log.append(Stream::Stdout, &[b'x'; 1000]).await;
    }
    let ring = log.ring();
    assert!(ring.data.len() + ring.entries.len() * ENTRY_COST <= 4096 + ENTRY_COST);
    assert!(ring.data.capacity() <= 8192);
    drop(ring);
    let (bytes, dropped) = all(&mut slow);
    assert_eq!(bytes.len() as u64 + dropped, 100_000);
    assert_eq!(dropped, log.dropped_bytes());
    let (_, dropped) = all(&mut log.reader(From::Oldest));
    assert_eq!(dropped, log.dropped_bytes());
}

#[tokio::test]
async fn a_holder_loses_nothing_and_leaving_lets_the_writer_go_on() {
    let log = Log::new(4096);
    log.open();
    let mut attached = log.attached_reader(From::Now);
    let writer = tokio::spawn({
        let log = Arc::clone(&log);
        async move {
            for byte in 0..200u8 {
                log.append(Stream::Stdout, &[byte; 512]).await;
            }
            log.close();
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 100 * 512 {
        let chunk = attached.next().await.unwrap();
        assert_eq!(chunk.dropped, 0);
        seen.extend_from_slice(&chunk.data);
    }
    let expected: Vec<u8> = (0..200u8).flat_map(|byte| [byte; 512]).take(seen.len()).collect();
    assert!(seen == expected);
    assert!(!writer.is_finished());
    drop(attached);
    writer.await.unwrap();
}

#[tokio::test]
async fn a_holder_that_takes_nothing_does_not_stop_the_container_for_ever() {
    let log = Log::with_patience(4096, Duration::from_millis(1));
    log.open();
    let mut stuck = log.attached_reader(From::Now);
    log.append(Stream::Stdout, &[b'x'; 10_000]).await;
    log.close();
    let (bytes, dropped) = all(&mut stuck);
    assert_eq!(bytes.len() as u64 + dropped, 10_000);
    assert!(dropped > 0);
}

#[tokio::test]
async fn a_follower_ends_with_the_writer() {
    let log = Log::new(4096);
    log.open();
    let mut follower = log.reader(From::Oldest);
    let writer = async {
        tokio::task::yield_now().await;
        log.append(Stream::Stdout, b"last").await;
        log.close();
    };
    let (chunk, ()) = tokio::join!(follower.next(), writer);
    assert_eq!(chunk.unwrap().data, "last");
    assert_eq!(follower.next().await, None);
}

proptest! {
    #[test]
    fn the_ring_is_always_the_end_of_what_was_written(pieces in prop::collection::vec((any::<bool>(), 0usize..700), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let log = Log::new(2048);
            let mut written = Vec::new();
            for (number, (first, length)) in pieces.into_iter().enumerate() {
                let piece = vec![number as u8; length];
                log.append(if first { Stream::Stdout } else { Stream::Stderr }, &piece).await;
                written.extend_from_slice(&piece);
            }
            let (bytes, dropped) = all(&mut log.reader(From::Oldest));
            assert_eq!(dropped as usize + bytes.len(), written.len());
            assert!(written.ends_with(&bytes));
        });
    }
}
