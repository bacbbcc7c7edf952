//! Asks the server what it serves, in both versions of the protocol.

use prost::Message;
use prost_types::FileDescriptorProto;
use tokio_stream::StreamExt;

use super::client::Client;

/// The protocol is the same in both versions; only its package has another name.
macro_rules! reflection {
    ($version:ident) => {
        pub mod $version {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };

            use super::*;

            fn ask(client: &Client, question: MessageRequest) -> MessageResponse {
                let (connection, origin) = client.transport();
                let question = ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(question),
                };
                client.block_on(async {
                    let mut reflection = ServerReflectionClient::with_origin(connection, origin);
                    let questions = tokio_stream::once(question);
                    let mut answers = reflection
                        .server_reflection_info(questions)
                        .await
                        .unwrap()
                        .into_inner();
                    answers.next().await.unwrap().unwrap().message_response.unwrap()
                })
            }

            /// The names of the services.
            pub fn services(client: &Client) -> Vec<String> {
                match ask(client, MessageRequest::ListServices(String::new())) {
                    MessageResponse::ListServicesResponse(list) => {
                        list.service.into_iter().map(|service| service.name).collect()
                    }
                    other => panic!("{other:?}"),
                }
            }

            fn files(client: &Client, question: MessageRequest) -> Vec<FileDescriptorProto> {
                match ask(client, question) {
                    MessageResponse::FileDescriptorResponse(files) => files
                        .file_descriptor_proto
                        .iter()
                        .map(|file| FileDescriptorProto::decode(&**file).unwrap())
                        .collect(),
                    other => panic!("{other:?}"),
                }
            }

            /// Every file that a service needs.
            pub fn learn(client: &Client) -> Vec<FileDescriptorProto> {
                let mut learnt: Vec<FileDescriptorProto> = Vec::new();
                for service in services(client) {
                    learnt.extend(files(client, MessageRequest::FileContainingSymbol(service)));
                }
                let lacking = |learnt: &[FileDescriptorProto]| {
                    let mut imports = learnt.iter().flat_map(|file| &file.dependency);
                    imports
                        .find(|name| learnt.iter().all(|file| file.name() != **name))
                        .cloned()
                };
                while let Some(name) = lacking(&learnt) {
                    learnt.extend(files(client, MessageRequest::FileByFilename(name)));
                }
                learnt
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);
