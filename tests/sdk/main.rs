//! The clients that there are: the SDK's gRPC and others (spec 3, spec 5.1).

mod clients;
mod grpcio;
mod send_again;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/venv.rs"]
mod venv;
