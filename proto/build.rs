//! Compiles the two `.proto` files without a `protoc` on the machine.

use prost_build::Config;
use protox::prost_reflect::prost_types::field_descriptor_proto::Type;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=VERSION");

    let mut files = protox::compile(["logagent.proto", "record.proto"], ["proto"])?;
    // `string` and `bytes` are the same on the wire. As `bytes` the payload is
    // a slice of the request's own buffer instead of a second copy of up to
    // 4 MiB; the service checks that it is UTF-8.
    for message in files
        .file
        .iter_mut()
        .flat_map(|file| &mut file.message_type)
    {
        for field in &mut message.field {
            if field.name() == "json_data" {
                field.set_type(Type::Bytes);
            }
        }
    }
    Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
