//! A new migration, or other answers about queries, make the crate stale.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
    println!("cargo::rerun-if-changed=../../.sqlx");
}
