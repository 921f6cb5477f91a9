//! The way to the main server (spec 6): names, proxies, TLS, real servers.

#[allow(dead_code)] // each area uses a part
#[path = "https/certs.rs"]
mod certs;
#[allow(dead_code)] // each area uses a part
#[path = "https/front.rs"]
mod front;
mod https;
mod names;
mod proxy;
mod servers;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/venv.rs"]
mod venv;
