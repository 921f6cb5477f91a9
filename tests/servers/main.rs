//! The replay (spec 6) against servers that no one here wrote: nginx, gunicorn,
//! uvicorn and Python's http.server.

mod answers;
mod keep_alive;
mod large;
mod nginx;
mod proxy;
mod python;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod unreadable;
#[path = "../grpcio/venv.rs"]
mod venv;
