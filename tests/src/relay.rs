//! A wiretap: a TCP relay that keeps a copy of every byte, as whoever carries the owner's traffic can.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Most bytes that are kept.
const MAX_KEPT: usize = 256 << 20;

/// Relays until the process ends; connections end with either side.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    kept: Arc<Mutex<Vec<u8>>>,
    carried: Arc<AtomicU64>,
}

impl Relay {
    pub fn to(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let tap = Arc::clone(&kept);
        let carried = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&carried);
        thread::spawn(move || {
            for owner in listener.incoming().flatten() {
                let Ok(pod) = TcpStream::connect(target) else { continue };
                for (from, into) in [(&owner, &pod), (&pod, &owner)] {
                    let (Ok(from), Ok(into)) = (from.try_clone(), into.try_clone()) else { continue };
                    let _ = into.set_nodelay(true);
                    let (tap, count) = (Arc::clone(&tap), Arc::clone(&count));
                    thread::spawn(move || carry(from, into, &tap, &count));
                }
            }
        });
        Ok(Self { address, kept, carried })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes so far, both ways.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// All bytes so far, both ways.
    pub fn kept(&self) -> Vec<u8> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn carry(mut from: TcpStream, mut into: TcpStream, tap: &Mutex<Vec<u8>>, carried: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        carried.fetch_add(count as u64, Ordering::Relaxed);
        let mut kept = tap.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + count <= MAX_KEPT {
            kept.extend_from_slice(&buffer[..count]);
        }
        drop(kept);
        if into.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Write);
}
