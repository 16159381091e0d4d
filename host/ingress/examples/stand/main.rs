//! Ingress alone, for tests and benchmarks: see [`program`].

mod program;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), program::Failure> {
    program::run(async |_| Err("this stand has no adapters: take `t1-stand` of the crate `routing`".into()))
        .await
}
