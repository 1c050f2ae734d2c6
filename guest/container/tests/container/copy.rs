//! Copying in and out, and archives and containers that want more than that.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path};

use postern_container::{CopyError, CopyInOptions, CopyOutOptions, CopySummary, FailureKind};
use postern_model::{ContainerName, Resources};
use tar::{Builder, EntryType, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Pod, name, wish, with_pod};

async fn put(
    pod: &Pod,
    id: &ContainerName,
    directory: &str,
    archive: &[u8],
) -> Result<CopySummary, CopyError> {
    put_with(pod, id, directory, archive, CopyInOptions { preserve_owner: true }).await
}

async fn put_with(
    pod: &Pod,
    id: &ContainerName,
    directory: &str,
    archive: &[u8],
    options: CopyInOptions,
) -> Result<CopySummary, CopyError> {
    let mut copy = pod.runtime.copy_in(id, Path::new(directory), options).await?;
    // A broken pipe says that the other side has given up; finish says why.
    let _ = copy.writer.as_mut().unwrap().write_all(archive).await;
    copy.finish().await
}

async fn get(pod: &Pod, id: &ContainerName, path: &str) -> Result<(Vec<u8>, CopySummary), CopyError> {
    let mut copy = pod.runtime.copy_out(id, Path::new(path), CopyOutOptions::default()).await?;
    let mut archive = Vec::new();
    copy.reader.read_to_end(&mut archive).await.unwrap();
    Ok((archive, copy.finish().await?))
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(1000);
    header.set_gid(1001);
    header.set_mtime(1_000_000_000);
    header
}

/// An archive of one entry, whose name is written as it is, without the checks of a well-behaved writer.
fn entry(kind: EntryType, path: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = header(kind, content.len() as u64);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, content).unwrap();
    builder.into_inner().unwrap()
}

fn join(archives: &[Vec<u8>]) -> Vec<u8> {
    // The end of an archive is two empty blocks.
    let mut joined: Vec<u8> =
        archives.iter().flat_map(|archive| archive[..archive.len() - 1024].to_vec()).collect();
    joined.extend([0; 1024]);
    joined
}

fn refused(result: Result<CopySummary, CopyError>) -> FailureKind {
    match result {
        Err(CopyError::Refused(failure)) => failure.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_goes_in_comes_out() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        let content: Vec<u8> =
            (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut builder = Builder::new(Vec::new());
        builder.append_data(&mut header(EntryType::Directory, 0), "tree", std::io::empty()).unwrap();
        builder
            .append_data(&mut header(EntryType::Regular, content.len() as u64), "tree/big", &content[..])
            .unwrap();
        builder.append_data(&mut header(EntryType::Regular, 0), "tree/empty", std::io::empty()).unwrap();
        builder.append_link(&mut header(EntryType::Symlink, 0), "tree/link", "/etc/passwd").unwrap();
        builder.append_link(&mut header(EntryType::Link, 0), "tree/hard", "tree/big").unwrap();
        let long = format!("tree/{}/{}", "d".repeat(120), "f".repeat(120));
        builder.append_data(&mut header(EntryType::Regular, 4), &long, &b"long"[..]).unwrap();
        let mut executable = header(EntryType::Regular, 2);
        executable.set_mode(0o4755);
        builder.append_data(&mut executable, "tree/run", &b"#!"[..]).unwrap();
        let archive = builder.into_inner().unwrap();

        let summary = put(&pod, &id, "/tmp", &archive).await.unwrap();
        assert_eq!((summary.entries, summary.bytes), (7, content.len() as u64 + 6));
        let root = pod.path("rootfs-a/tmp/tree");
        assert!(fs::read(root.join("big")).unwrap() == content);
        let run = fs::metadata(root.join("run")).unwrap();
        assert_eq!(
            (run.mode() & 0o7777, run.uid(), run.gid(), run.mtime()),
            (0o4755, 1000, 1001, 1_000_000_000)
        );
        assert_eq!(fs::metadata(root.join("hard")).unwrap().nlink(), 2);

        let (back, summary) = get(&pod, &id, "/tmp/tree").await.unwrap();
        assert_eq!(summary.skipped, 0);
        let mut seen = Vec::new();
        for entry in tar::Archive::new(&back[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if path == "tree/big" || path == "tree/hard" {
                assert!(bytes == content);
            }
            if path == "tree/link" {
                assert_eq!(entry.link_name().unwrap().unwrap(), Path::new("/etc/passwd"));
            }
            seen.push(path);
        }
        seen.sort();
        let mut expected =
            vec!["tree", "tree/big", "tree/empty", "tree/hard", "tree/link", "tree/run", &long];
        let parent = format!("tree/{}", "d".repeat(120));
        expected.push(&parent);
        expected.sort_unstable();
        assert_eq!(seen.iter().map(|path| path.trim_end_matches('/')).collect::<Vec<_>>(), expected);
    });
}

#[test]
fn without_owners_all_is_the_containers_users() {
    with_pod(|pod| async move {
        let mut spec = wish("a", &["sleep", "1000"]);
        spec.user = postern_model::RunUser::Named("web".into());
        let id = pod.sleeper_of(spec).await;
        let archive = entry(EntryType::Regular, "new/deep/file", "", b"x");
        put_with(&pod, &id, "/tmp", &archive, CopyInOptions::default()).await.unwrap();
        for path in ["tmp/new", "tmp/new/deep", "tmp/new/deep/file"] {
            let made = fs::metadata(pod.path("rootfs-a").join(path)).unwrap();
            assert_eq!((made.uid(), made.gid()), (33, 44), "{path}");
        }
        // What was there keeps its owner.
        assert_eq!(fs::metadata(pod.path("rootfs-a/tmp")).unwrap().uid(), 0);
    });
}

#[test]
fn archives_cannot_climb() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        pod.script(&id, "mkdir -p /box/in; echo precious >/etc/secret").await;
        for path in ["../out", "a/../../out", "in/../../out", "..", "/../out"] {
            let archive = entry(EntryType::Regular, path, "", b"evil");
            assert_eq!(refused(put(&pod, &id, "/box", &archive).await), FailureKind::Archive, "{path}");
        }
        // An absolute name is one in the directory.
        put(&pod, &id, "/box", &entry(EntryType::Regular, "/abs", "", b"fine")).await.unwrap();
        assert_eq!(fs::read(pod.path("rootfs-a/box/abs")).unwrap(), b"fine");

        for target in ["/etc", "../etc", "../../etc", "in/../../etc", "/proc/1/root/etc"] {
            let archive = join(&[
                entry(EntryType::Symlink, "way", target, b""),
                entry(EntryType::Regular, "way/secret", "", b"evil"),
            ]);
            assert_eq!(refused(put(&pod, &id, "/box", &archive).await), FailureKind::Path, "{target}");
        }
        // One that stays inside is followed, as tar does.
        let inside = join(&[
            entry(EntryType::Symlink, "way", "in", b""),
            entry(EntryType::Regular, "way/file", "", b"ok"),
        ]);
        put(&pod, &id, "/box", &inside).await.unwrap();
        assert_eq!(fs::read(pod.path("rootfs-a/box/in/file")).unwrap(), b"ok");

        // A link at the end of the name makes way instead of being written through.
        pod.script(&id, "ln -s /etc/secret /box/final").await;
        put(&pod, &id, "/box", &entry(EntryType::Regular, "final", "", b"new")).await.unwrap();
        assert_eq!(fs::read(pod.path("rootfs-a/etc/secret")).unwrap(), b"precious\n");
        assert_eq!(fs::read(pod.path("rootfs-a/box/final")).unwrap(), b"new");

        for target in ["/etc/../../etc/secret", "../etc/secret"] {
            let archive = entry(EntryType::Link, "hard", target, b"");
            assert_eq!(refused(put(&pod, &id, "/box", &archive).await), FailureKind::Archive, "{target}");
        }
        assert_eq!(
            refused(put(&pod, &id, "/box", &entry(EntryType::Link, "h", "/etc/secret", b"")).await),
            FailureKind::Path
        );
        assert_eq!(fs::metadata(pod.path("rootfs-a/etc/secret")).unwrap().nlink(), 1);
    });
}

#[test]
fn devices_pipes_and_broken_archives_are_refused() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
            let archive = entry(kind, "special", "", b"");
            assert_eq!(refused(put(&pod, &id, "/tmp", &archive).await), FailureKind::Archive, "{kind:?}");
        }
        assert!(!pod.path("rootfs-a/tmp/special").exists());
        let whole = entry(EntryType::Regular, "file", "", &[7; 100_000]);
        for cut in [100, 600, 50_000] {
            assert_eq!(refused(put(&pod, &id, "/tmp", &whole[..cut]).await), FailureKind::Archive, "{cut}");
        }
        let mut damaged = whole.clone();
        damaged[5] ^= 1;
        assert_eq!(refused(put(&pod, &id, "/tmp", &damaged).await), FailureKind::Archive);
        assert_eq!(refused(put(&pod, &id, "/tmp", &[1; 4096]).await), FailureKind::Archive);
        assert_eq!(refused(put(&pod, &id, "/no/such", &whole).await), FailureKind::Path);
        assert_eq!(refused(put(&pod, &id, "/etc/passwd", &whole).await), FailureKind::Path);
        // A pipe that the container puts in the way does not hold anybody up.
        pod.script(&id, "rm /tmp/file; mknod /tmp/file p").await;
        put(&pod, &id, "/tmp", &whole).await.unwrap();
        assert_eq!(fs::metadata(pod.path("rootfs-a/tmp/file")).unwrap().len(), 100_000);
    });
}

#[test]
fn the_kernels_files_are_not_written_through_a_trap() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        pod.script(&id, "ln -s /proc/sys/kernel /box; ln -s /dev /devices").await;
        let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let archive = entry(EntryType::Regular, "core_pattern", "", b"|/evil");
        assert!(put(&pod, &id, "/box", &archive).await.is_err());
        assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
    });
}

#[test]
fn out_leads_nowhere_else() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        pod.script(
            &id,
            "mkdir /d; echo x >/d/file; ln -s /etc/passwd /d/link; mknod /d/pipe p; mknod /d/null c 1 3",
        )
        .await;
        let (archive, summary) = get(&pod, &id, "/d").await.unwrap();
        assert_eq!((summary.entries, summary.skipped), (3, 2));
        assert!(!String::from_utf8_lossy(&archive).contains("root:x:0"));
        for path in ["/no/such", "/d/file/x", "/proc", "/sys/kernel"] {
            assert!(get(&pod, &id, path).await.is_err(), "{path}");
        }
        // Everything, but not what the kernel shows.
        let (archive, _) = get(&pod, &id, "/etc").await.unwrap();
        assert!(String::from_utf8_lossy(&archive).contains("# hosts of the pod"));

        let follow = CopyOutOptions { follow_link: true };
        let mut copy = pod.runtime.copy_out(&id, Path::new("/d/link"), follow).await.unwrap();
        assert!(!copy.is_directory && copy.total_bytes > 0);
        let mut archive = Vec::new();
        copy.reader.read_to_end(&mut archive).await.unwrap();
        copy.finish().await.unwrap();
        assert!(String::from_utf8_lossy(&archive).contains("root:x:0"));
        // A reader that goes away ends it.
        pod.script(&id, "head -c 5000000 /dev/zero >/d/big").await;
        let copy = pod.runtime.copy_out(&id, Path::new("/d"), CopyOutOptions::default()).await.unwrap();
        assert!(copy.finish().await.is_err());
    });
}

#[test]
fn an_ended_container_can_be_copied_from_and_to() {
    with_pod(|pod| async move {
        let output = pod
            .run(crate::support::script("a", "echo result >/result; ln -s /../../.. /up; ln -s / /self"))
            .await;
        assert!(output.status.success());
        let id = name("a");
        let (archive, _) = get(&pod, &id, "/result").await.unwrap();
        assert!(String::from_utf8_lossy(&archive).contains("result\n"));
        put(&pod, &id, "/tmp", &entry(EntryType::Regular, "in", "", b"in")).await.unwrap();
        assert_eq!(fs::read(pod.path("rootfs-a/tmp/in")).unwrap(), b"in");
        // Links end at the container's root, as they would in it.
        put(&pod, &id, "/up/self/tmp", &entry(EntryType::Regular, "two", "", b"in")).await.unwrap();
        assert!(pod.path("rootfs-a/tmp/two").exists());
    });
}

#[test]
fn a_copy_takes_the_containers_memory_not_the_guests() {
    with_pod(|pod| async move {
        let mut spec = wish("a", &["sleep", "1000"]);
        let kind = postern_model::container::MountKind::Tmpfs { size: None };
        let mount =
            postern_model::container::MountSpec { destination: "/mem".into(), kind, read_only: false };
        spec.mounts = vec![mount];
        spec.resources = Resources { memory: Some(24 << 20), ..Resources::default() };
        let id = pod.sleeper_of(spec).await;
        let archive = entry(EntryType::Regular, "big", "", &vec![1; 64 << 20]);
        assert!(put(&pod, &id, "/mem", &archive).await.is_err());
        // The copy has ended, the workload has not.
        assert!(pod.runtime.stats(&id).await.unwrap().oom_kills > 0);
        pod.runtime
            .signal(&id, postern_container::Signal::try_from(18).unwrap(), postern_container::Target::Init)
            .unwrap();
    });
}
