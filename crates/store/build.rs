//! Has the crate compiled anew when a migration comes or changes: the macro that embeds them does not tell cargo.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
