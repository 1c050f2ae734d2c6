//! Debian's docker-registry on loopback, filled by skopeo: with and without a password.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use postern_model::{ImageReference, Secret};

use super::support::*;
use crate::{Auth, Store, Transport, progress::unwatched, stream::sha256};

struct Registry {
    process: Child,
    address: String,
    _work: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// `None`, with a reason printed, where it is not installed.
    fn start(test: &str, password_file: Option<&str>) -> Option<Self> {
        let work = tempfile::tempdir().unwrap();
        // The port is free now and taken a moment later; nobody else on loopback waits for it.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            work.path().join("data").display()
        );
        if let Some(contents) = password_file {
            let path = work.path().join("htpasswd");
            fs::write(&path, contents).unwrap();
            config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display());
        }
        fs::write(work.path().join("config.yml"), config).unwrap();
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(work.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut process) = started else {
            eprintln!("skipped {test}: docker-registry is not installed");
            return None;
        };
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !line.contains("listening on") {
            line.clear();
            assert!(
                log.read_line(&mut line).unwrap() > 0 && Instant::now() < deadline,
                "registry did not start"
            );
        }
        // Whoever writes a log must be able to.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Self { process, address, _work: work })
    }

    fn push(&self, test: &str, image: &TestImage, options: &[&str]) -> Option<()> {
        let layout = tempfile::tempdir().unwrap();
        for (name, bytes) in image.files() {
            let path = layout.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let pushed = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"])
            .args(options)
            .arg(format!("oci:{}", layout.path().display()))
            .arg(format!("docker://{}/team/test:1", self.address))
            .output();
        let Ok(output) = pushed else {
            eprintln!("skipped {test}: skopeo is not installed");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(())
    }

    fn reference(&self) -> ImageReference {
        format!("{}/team/test:1", self.address).parse().unwrap()
    }
}

#[tokio::test]
async fn pulls_from_a_registry_as_people_run_it() {
    const TEST: &str = "pulls_from_a_registry_as_people_run_it";
    if without_root(TEST) {
        return;
    }
    let image = two_layers();
    let Some(registry) = Registry::start(TEST, None) else { return };
    let Some(()) = registry.push(TEST, &image, &[]) else { return };
    let disk = Tmpfs::of_mib(64);
    let store = Store::open(disk.path(), limits()).unwrap();
    let pulled = store
        .pull(&registry.reference(), Auth::Anonymous, Transport::PlainHttp, &unwatched())
        .await
        .map_err(|error| chain(&error))
        .unwrap();
    assert_eq!(pulled.manifest_digest, sha256(&image.manifest_bytes()));
    let rootfs = store.prepare(&pulled, &postern_model::ContainerName::new("c").unwrap()).await.unwrap();
    assert_eq!(fs::read_to_string(rootfs.path().join("etc/motd")).unwrap(), "new");
    rootfs.remove().await.unwrap();
    let missing: ImageReference = format!("{}/team/other:1", registry.address).parse().unwrap();
    let error = store.pull(&missing, Auth::Anonymous, Transport::PlainHttp, &unwatched()).await.unwrap_err();
    assert!(chain(&error).contains("has no manifest 1 in team/other"), "{}", chain(&error));
}

#[tokio::test]
async fn gives_a_registry_the_password_it_asks_for() {
    const TEST: &str = "gives_a_registry_the_password_it_asks_for";
    // bcrypt of "canary", the only scheme this registry takes.
    const PASSWORDS: &str = "owner:$2b$05$J1B00iC8BnLZ/7RaGIoGVO0wy22zprXY91jalctzJc//2optyRkjK\n";
    let Some(registry) = Registry::start(TEST, Some(PASSWORDS)) else { return };
    let Some(()) =
        registry.push(TEST, &TestImage::new(&[tar(&[("a", b"a")])]), &["--dest-creds=owner:canary"])
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let pull = async |auth| store.pull(&registry.reference(), auth, Transport::PlainHttp, &unwatched()).await;
    assert!(pull(Auth::Anonymous).await.is_err());
    let basic =
        |password: &str| Auth::Basic { username: "owner".into(), password: Secret::new(password.into()) };
    assert!(pull(basic("wrong")).await.is_err());
    pull(basic("canary")).await.unwrap();
}
