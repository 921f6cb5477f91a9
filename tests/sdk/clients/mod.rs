//! The agent and clients of gRPC that no one here wrote: grpcio, which is the C core
//! that most languages stand on, `@grpc/grpc-js`, curl, and Python's h2 for what none
//! of them would send.

mod channel;
mod compression;
mod curl;
mod frames;
mod keepalive;
mod leaving;
mod lives;
mod node;
mod orders;
mod program;
mod sizes;
mod statuses;
mod tap;
