//! Standard input as a stream of pieces. A thread of its own reads, because standard input may be a file, a pipe or a
//! terminal shared with others, and must not be made non-blocking for them.

use std::{
    io::{self, Read},
    thread,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Large enough for bulk data, small enough that a few of them in flight do not matter.
const PIECE: usize = 128 << 10;
const QUEUE: usize = 4;

/// Begins to read standard input. The stream ends at its end; an error ends it too, as its last item.
pub(crate) fn stdin() -> mpsc::Receiver<io::Result<Bytes>> {
    let (pieces, receiver) = mpsc::channel(QUEUE);
    // The thread may sit in read(2) when the program ends; nothing waits for it.
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = BytesMut::new();
        loop {
            buffer.resize(PIECE, 0);
            let piece = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(buffer.split_to(read).freeze()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if pieces.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Finds ctrl-p ctrl-q, the keys that leave a container running, in what is typed.
#[derive(Debug, Default)]
pub(crate) struct DetachKeys {
    armed: bool,
}

const FIRST: u8 = 0x10;
const SECOND: u8 = 0x11;

/// What the user's keys mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Input(Bytes),
    Detach,
}

impl DetachKeys {
    /// Input for the container, without the keys; a first key is held back until the next byte is known.
    pub(crate) fn look(&mut self, piece: &[u8]) -> Typed {
        let mut out = BytesMut::with_capacity(piece.len() + 1);
        for &byte in piece {
            match (self.armed, byte) {
                (true, SECOND) => return Typed::Detach,
                (true, FIRST) => out.extend_from_slice(&[FIRST]),
                (true, _) => {
                    self.armed = false;
                    out.extend_from_slice(&[FIRST, byte]);
                }
                (false, FIRST) => self.armed = true,
                (false, _) => out.extend_from_slice(&[byte]),
            }
        }
        Typed::Input(out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::default();
        let mut input = Vec::new();
        for piece in pieces {
            match keys.look(piece) {
                Typed::Input(bytes) => input.extend_from_slice(&bytes),
                Typed::Detach => return (input, true),
            }
        }
        (input, false)
    }

    #[test]
    fn only_both_keys_in_a_row_detach() {
        assert_eq!(look(&[b"ls\r"]), (b"ls\r".to_vec(), false));
        assert_eq!(look(&[&[FIRST], &[SECOND]]), (vec![], true));
        assert!(look(&[b"a", &[FIRST, SECOND]]).1);
        assert_eq!(look(&[&[FIRST, b'x', SECOND]]), (vec![FIRST, b'x', SECOND], false));
        assert!(look(&[&[FIRST, FIRST, SECOND]]).1);
        assert_eq!(look(&[&[SECOND]]), (vec![SECOND], false));
    }
}
