//! What `make demo` shows people, held for every change: each step fails when it did not go as it should.

#[test]
fn the_main_story() {
    // The demo is a tap, too, when it is called so.
    let tap = std::path::Path::new(env!("CARGO_BIN_EXE_postern-demo"));
    if let Err(error) = postern_tests::story::play(&mut std::io::stdout(), tap) {
        panic!("{error:#}");
    }
}
