//! How the shipped program is linked. It is measured, booted under emulation and held in memory all its life,
//! so what it never uses at run time stays out of it; see also the release profile in the root `Cargo.toml`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=release.ld");
    // A development build unwinds, and is read with a debugger.
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    // A static PIE relocates itself: one bit for each place instead of 24 bytes (glibc 2.36 and later).
    link("-Wl,-z,pack-relative-relocs");
    // A panic aborts, so nobody walks the stack; `strip` would keep the tables for it.
    link("-Wl,--no-eh-frame-hdr");
    // Functions of one and the same code, of which generics make many, are there once.
    link("-Wl,--icf=all");
    let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    link(&format!("-Wl,-T,{directory}/release.ld"));
}

fn link(argument: &str) {
    println!("cargo::rustc-link-arg-bins={argument}");
}
