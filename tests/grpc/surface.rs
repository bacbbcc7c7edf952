//! What reflection tells: the services, the messages, the comments; the surface that others build on.

use std::fmt::Write;

use prost_reflect::{FileDescriptor, Kind, MessageDescriptor};

use super::{
    client::{Client, SERVICE},
    reflection::{v1, v1alpha},
};
use crate::support::{Backend, Gateway, golden};

#[test]
fn both_versions_of_reflection_tell_the_same() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &[]);
    let client = Client::bare(gateway.grpc.unwrap());
    let mut services = v1::services(&client);
    assert_eq!(v1alpha::services(&client), services);
    services.sort();
    assert_eq!(
        services,
        [
            SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ]
    );
    assert_eq!(v1alpha::learn(&client), v1::learn(&client));
}

/// Whoever depends on the contract depends on these names and numbers.
#[test]
fn the_surface_of_the_contract_is_pinned() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &[]);
    let file = Client::connect(gateway.grpc.unwrap()).service().parent_file();
    golden("proto_surface", &surface(&file));
}

/// The file without its comments.
fn surface(file: &FileDescriptor) -> String {
    let mut text = format!("package {}\n", file.package_name());
    for service in file.services() {
        writeln!(text, "\nservice {}", service.name()).unwrap();
        for method in service.methods() {
            let streams = |is: bool| if is { "stream " } else { "" };
            let (input, output) = (method.input(), method.output());
            writeln!(
                text,
                "  rpc {}({}{}) returns ({}{})",
                method.name(),
                streams(method.is_client_streaming()),
                input.full_name(),
                streams(method.is_server_streaming()),
                output.full_name()
            )
            .unwrap();
        }
    }
    for message in file.messages() {
        writeln!(text, "\nmessage {}", message.name()).unwrap();
        for field in message.fields() {
            let kind = match field.kind() {
                Kind::Message(message) => message.full_name().to_owned(),
                Kind::Enum(names) => names.full_name().to_owned(),
                scalar => format!("{scalar:?}"),
            };
            let many = if field.is_list() { "repeated " } else { "" };
            writeln!(text, "  {many}{kind} {} = {}", field.name(), field.number()).unwrap();
        }
    }
    for names in file.enums() {
        writeln!(text, "\nenum {}", names.name()).unwrap();
        for value in names.values() {
            writeln!(text, "  {} = {}", value.name(), value.number()).unwrap();
        }
    }
    text
}

#[test]
fn everything_in_the_contract_has_a_comment() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &[]);
    let file = Client::connect(gateway.grpc.unwrap()).service().parent_file();
    let source = file.file_descriptor_proto().source_code_info.as_ref().unwrap();
    let commented = |path: &[i32]| {
        source
            .location
            .iter()
            .any(|location| location.path == path && !location.leading_comments().trim().is_empty())
    };
    let mut paths = Vec::new();
    for service in file.services() {
        paths.push((service.full_name().to_owned(), service.path().to_vec()));
        for method in service.methods() {
            paths.push((method.full_name().to_owned(), method.path().to_vec()));
        }
    }
    for message in file.messages() {
        add_message(&message, &mut paths);
    }
    for names in file.enums() {
        paths.push((names.full_name().to_owned(), names.path().to_vec()));
        for value in names.values() {
            paths.push((value.full_name().to_owned(), value.path().to_vec()));
        }
    }
    let bare: Vec<_> = paths
        .iter()
        .filter(|(_, path)| !commented(path))
        .map(|(name, _)| name)
        .collect();
    assert!(bare.is_empty(), "without a comment: {bare:?}");
    assert!(paths.len() >= 2 + 5 + 4, "too little was looked at: {paths:?}");
}

fn add_message(message: &MessageDescriptor, paths: &mut Vec<(String, Vec<i32>)>) {
    paths.push((message.full_name().to_owned(), message.path().to_vec()));
    for field in message.fields() {
        paths.push((field.full_name().to_owned(), field.path().to_vec()));
    }
    for child in message.child_messages() {
        add_message(&child, paths);
    }
}
