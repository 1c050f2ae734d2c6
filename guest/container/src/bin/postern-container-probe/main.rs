//! Makes system calls that a container is refused, and prints how each was answered: for tests.

mod sys;

fn main() {
    sys::probe();
}
