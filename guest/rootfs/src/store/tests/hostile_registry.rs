//! A registry that does not do what it should, and the honest one it is made of.

use std::sync::{Arc, Mutex};

use postern_model::{ImageReference, Secret};

use super::{
    lies::{false_content, strange_answers},
    registry::{Handler, Reply, Server, honest, is_layer},
    support::*,
};
use crate::{
    Auth, Image, Limits, PullError, Store, Transport, progress::unwatched, registry::Roots, stream::sha256,
};

async fn pull(store: &Store, server: &Server, auth: Auth) -> Result<Image, PullError> {
    store.pull(&server.reference(), auth, Transport::PlainHttp, &unwatched()).await
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    (directory, store)
}

fn image() -> TestImage {
    TestImage::new(&[tar(&[("a", &[1; 200_000])]), tar(&[("b", b"b")]), tar(&[("c", b"c")])])
}

#[tokio::test]
async fn pulls_the_guests_platform_out_of_an_index() {
    let image = image();
    let (served, (_directory, store)) = (image.clone(), store());
    let server = Server::start(move |asked| honest(&served, asked)).await;
    let progress = unwatched();
    let pulled =
        store.pull(&server.reference(), Auth::Anonymous, Transport::PlainHttp, &progress).await.unwrap();
    assert_eq!(pulled.manifest_digest, sha256(&image.manifest_bytes()));
    assert_eq!(pulled.reference, Some(server.reference()));
    let seen = *progress.borrow();
    let total: usize = image.layers.iter().map(|(blob, _)| blob.len()).sum();
    assert_eq!((seen.received_bytes, seen.total_bytes), (total as u64, total as u64));
    assert_eq!((seen.layers_done, seen.layers_total), (3, 3));
    // A second pull fetches documents only.
    let requests = server.asked().len();
    pull(&store, &server, Auth::Anonymous).await.unwrap();
    assert_eq!(server.asked().len(), requests + 3);
}

#[tokio::test]
async fn goes_on_where_a_connection_broke() {
    let image = image();
    for ranges in [true, false] {
        let (served, (_directory, store)) = (image.clone(), store());
        let broken = Mutex::new(0);
        let server = Server::start(move |asked| {
            let mut asked = asked.clone();
            if !ranges {
                asked.headers.remove("range");
            }
            let reply = honest(&served, &asked);
            let mut broken = broken.lock().unwrap();
            match is_layer(&served, 0, &asked) && *broken < 2 {
                true => {
                    *broken += 1;
                    let cut = Some(*broken * 60_000);
                    Reply { cut, ..reply }
                }
                false => reply,
            }
        })
        .await;
        pull(&store, &server, Auth::Anonymous).await.unwrap();
        let asked: Vec<_> = server.asked().into_iter().filter(|asked| is_layer(&image, 0, asked)).collect();
        assert_eq!(asked.len(), 3);
        assert!(asked[1].header("range").starts_with("bytes="), "{asked:?}");
    }
}

#[tokio::test]
async fn tries_again_when_a_registry_is_busy_but_not_for_ever() {
    let (served, (_directory, store)) = (image(), store());
    let refusals = Mutex::new(0);
    let server = Server::start(move |asked| {
        let mut refusals = refusals.lock().unwrap();
        *refusals += 1;
        if *refusals <= 2 { Reply::status(503) } else { honest(&served, asked) }
    })
    .await;
    pull(&store, &server, Auth::Anonymous).await.unwrap();
    let down = Server::start(|_| Reply::status(503)).await;
    let error = chain(&pull(&store, &down, Auth::Anonymous).await.unwrap_err());
    assert_eq!(
        error,
        format!("image cannot be fetched: registry {} answers manifest 1 with status 503", down.address)
    );
    assert_eq!(down.asked().len(), 5);
}

#[tokio::test]
async fn believes_nothing_that_is_not_what_was_asked_for() {
    let image = image();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Limits { document_bytes: 65_536, ..limits() }).unwrap();
    let before = snapshot(&store);
    for (name, lie, expected) in false_content(&image).into_iter().chain(strange_answers()) {
        let served = image.clone();
        let server =
            Server::start(move |asked| lie(&served, asked).unwrap_or_else(|| honest(&served, asked))).await;
        let error = chain(&pull(&store, &server, Auth::Anonymous).await.unwrap_err());
        assert!(error.contains(&expected), "{name}: {error}\nexpected: {expected}");
        assert_eq!(snapshot(&store), before, "{name}");
    }
}

#[tokio::test]
async fn a_pinned_reference_gets_that_manifest_or_none() {
    let image = image();
    let (served, (_directory, store)) = (image.clone(), store());
    let server = Server::start(move |asked| match asked.path.contains(&digest(b"wanted")) {
        true => Reply::ok(served.manifest_bytes()),
        false => honest(&served, asked),
    })
    .await;
    let pinned = |digest: String| format!("{}/test@{digest}", server.address).parse().unwrap();
    let right: ImageReference = pinned(digest(&image.manifest_bytes()));
    store.pull(&right, Auth::Anonymous, Transport::PlainHttp, &unwatched()).await.unwrap();
    let wrong = pinned(digest(b"wanted"));
    let error = store.pull(&wrong, Auth::Anonymous, Transport::PlainHttp, &unwatched()).await.unwrap_err();
    assert!(matches!(error, PullError::Digest { what: "manifest", .. }), "{error}");
}

fn basic() -> Auth {
    Auth::Basic { username: "owner".into(), password: Secret::new("canary".into()) }
}

/// `owner:canary`.
const BASIC: &str = "Basic b3duZXI6Y2FuYXJ5";

#[tokio::test]
async fn answers_basic_and_bearer_challenges() {
    for kind in ["Basic", "Bearer"] {
        let (served, (_directory, store)) = (image(), store());
        let server = Server::start(move |asked| {
            if asked.path.starts_with("/token") {
                assert_eq!(asked.path, "/token?service=here&scope=repository%3Atest%3Apull");
                return match asked.header("authorization") == BASIC {
                    true => Reply::ok(br#"{"token":"granted"}"#.to_vec()),
                    false => Reply::status(401),
                };
            }
            let expected = if kind == "Basic" { BASIC } else { "Bearer granted" };
            let realm = format!("http://{}/token", asked.header("host"));
            match asked.header("authorization") == expected {
                true => honest(&served, asked),
                false => Reply::status(401)
                    .header("www-authenticate", format!("{kind} realm=\"{realm}\",service=\"here\"")),
            }
        })
        .await;
        pull(&store, &server, basic()).await.unwrap();
        // Asked once; then the answer is known.
        assert_eq!(server.asked().iter().filter(|asked| asked.header("authorization").is_empty()).count(), 1);
        let (_directory, store) = self::store();
        let error = chain(&pull(&store, &server, Auth::Anonymous).await.unwrap_err());
        assert!(
            error.ends_with("registry refuses anonymous access; give a user name and a password"),
            "{error}"
        );
        let wrong = Auth::Basic { username: "owner".into(), password: Secret::new("wrong".into()) };
        let error = chain(&pull(&store, &server, wrong).await.unwrap_err());
        assert!(error.ends_with("registry refuses the user name or password"), "{error}");
        assert!(!error.contains("wrong"));
    }
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_elsewhere() {
    let image = image();
    let blobs = image.clone();
    let elsewhere = Server::start(move |asked| honest(&blobs, asked)).await;
    let (served, (_directory, store)) = (image, store());
    let target = elsewhere.address.clone();
    let server = Server::start(move |asked| {
        if asked.header("authorization") != BASIC {
            return Reply::status(401).header("www-authenticate", "Basic realm=\"x\"");
        }
        match asked.path.contains("/blobs/") {
            true => Reply::status(307).header("location", format!("http://{target}{}", asked.path)),
            false => honest(&served, asked),
        }
    })
    .await;
    pull(&store, &server, basic()).await.unwrap();
    assert_eq!(elsewhere.asked().len(), 4);
    assert!(elsewhere.asked().iter().all(|asked| asked.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_cancelled_pull_leaves_nothing() {
    let (served, (_directory, store)) = (image(), store());
    let before = snapshot(&store);
    let (reached, mut when_reached) = tokio::sync::watch::channel(false);
    // The first layer ends early each time, so the pull is in the middle of it when it is cancelled.
    let server = Server::start(move |asked| {
        let cut = is_layer(&served, 0, asked).then_some(50_000);
        if asked.header("range").starts_with("bytes=") {
            reached.send_replace(true);
        }
        Reply { cut, ..honest(&served, asked) }
    })
    .await;
    let pulling = {
        let (store, reference) = (store.clone(), server.reference());
        tokio::spawn(async move {
            store.pull(&reference, Auth::Anonymous, Transport::PlainHttp, &unwatched()).await
        })
    };
    when_reached.wait_for(|reached| *reached).await.unwrap();
    pulling.abort();
    assert!(pulling.await.unwrap_err().is_cancelled());
    let all = u32::try_from(super::super::operation::CONCURRENT).unwrap();
    drop(store.0.turns.acquire_many(all).await.unwrap());
    assert_eq!(snapshot(&store), before);
}

#[tokio::test]
async fn speaks_tls_to_who_can_prove_its_name_only() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let served = image();
    let handler: Handler = Arc::new(move |asked| honest(&served, asked));
    let server = Server::listen(handler, Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await;
    let port = server.address.rsplit(':').next().unwrap();
    let named: ImageReference = format!("localhost:{port}/test:1").parse().unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let trusting = Store::open_with_roots(directory.path(), limits(), Roots::Only(Arc::new(roots))).unwrap();
    trusting.pull(&named, Auth::Anonymous, Transport::Tls, &unwatched()).await.unwrap();

    // The public roots know nothing of it; and a name it does not have is not its own.
    let (_directory, public) = store();
    for (store, reference) in [(&public, &named), (&trusting, &server.reference())] {
        let error = store.pull(reference, Auth::Anonymous, Transport::Tls, &unwatched()).await.unwrap_err();
        assert!(chain(&error).contains("certificate"), "{}", chain(&error));
    }
    // Nothing falls back to HTTP.
    let plain = Server::start(|_| Reply::status(200)).await;
    assert!(public.pull(&plain.reference(), Auth::Anonymous, Transport::Tls, &unwatched()).await.is_err());
    assert!(plain.asked().is_empty());
}
