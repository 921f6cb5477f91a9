//! The replay (spec 6) against servers that no one here wrote: Caddy, gunicorn,
//! uvicorn and Python's http.server.

mod answers;
mod caddy;
mod harness;
mod keep_alive;
mod large;
mod proxy;
mod python;
