//! Rules of the source tree.

fn main() {}
