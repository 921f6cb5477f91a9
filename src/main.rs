//! The agent's executable: everything is in the library, so that tests and the
//! outage example run the very same code.

fn main() -> std::process::ExitCode {
    echopost::main()
}
