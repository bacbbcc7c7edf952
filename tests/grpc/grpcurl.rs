//! grpcurl itself, when it is on the machine.

use std::process::Command;

use super::client::SERVICE;
use crate::support::{Backend, Gateway};

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn grpcurl_lists_describes_and_calls_as_the_demo_says() {
    if Command::new("grpcurl").arg("--version").output().is_err() {
        eprintln!("NOT TESTED: grpcurl is not on this machine; the client made from reflection alone was tested");
        return;
    }
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &["--demo"]);
    let address = gateway.grpc.unwrap().to_string();
    let grpcurl = |arguments: &[&str]| run(Command::new("grpcurl").args(["-plaintext", &address]).args(arguments));

    assert!(grpcurl(&["list"]).lines().any(|line| line == SERVICE));
    let described = grpcurl(&["describe", "dcams.storage.v1.Customer"]);
    assert!(
        described.contains("  // The email address as it was registered.\n  string email = 1;"),
        "{described}"
    );

    let line = gateway
        .banner
        .lines()
        .find(|line| line.trim().starts_with("grpcurl "))
        .unwrap();
    let called = run(Command::new("sh").args(["-c", line]));
    for field in [
        r#""firstName": "John""#,
        r#""reference": "888888812""#,
        r#""status": "STATUS_PASS""#,
    ] {
        assert!(called.contains(field), "{called}");
    }
}
