//! What `make demo` shows people, held for every change: each step fails when it did not go as it should.

#[test]
fn the_main_story() {
    if let Err(error) = postern_tests::story::play(&mut std::io::stdout()) {
        panic!("{error:#}");
    }
}
