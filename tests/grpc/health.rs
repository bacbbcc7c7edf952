//! `grpc.health.v1`, as load balancers and supervisors ask it.

use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::client::{Client, Connection, SERVICE};
use crate::support::{Backend, Gateway, Ground, eventually};

fn health(client: &Client) -> HealthClient<Connection> {
    let (connection, origin) = client.transport();
    HealthClient::with_origin(connection, origin)
}

fn question(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

fn check(client: &Client, service: &str) -> Result<ServingStatus, Code> {
    let answer = client.block_on(async { health(client).check(question(service)).await });
    answer
        .map(|answer| answer.get_ref().status())
        .map_err(|status| status.code())
}

#[test]
fn health_follows_the_store_down_and_up_again() {
    for backend in Backend::BOTH {
        let (ground, database) = Ground::new(backend);
        super::prepare(&database);
        let gateway = Gateway::start(&database, &[]);
        let client = Client::connect(gateway.grpc.unwrap());
        let mut watch = client.block_on(async { health(&client).watch(question(SERVICE)).await.unwrap().into_inner() });
        let mut next = || -> HealthCheckResponse { client.block_on(watch.next()).unwrap().unwrap() };

        for service in ["", SERVICE] {
            assert_eq!(check(&client, service), Ok(ServingStatus::Serving), "{backend}");
        }
        assert_eq!(next().status(), ServingStatus::Serving, "{backend}");

        let away = ground.take_away();
        super::update(&client).unwrap_err();
        assert_eq!(next().status(), ServingStatus::NotServing, "{backend}");
        for service in ["", SERVICE] {
            eventually("it says that it does not serve", || {
                check(&client, service) == Ok(ServingStatus::NotServing)
            });
        }

        away.bring_back();
        assert_eq!(next().status(), ServingStatus::Serving, "{backend}");
    }
}

#[test]
fn a_service_that_nobody_serves_is_not_known() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &[]);
    let client = Client::bare(gateway.grpc.unwrap());
    assert_eq!(check(&client, "dcams.storage.v2.StorageService"), Err(Code::NotFound));
    let mut watch = client.block_on(async { health(&client).watch(question("nobody")).await.unwrap().into_inner() });
    let first = client.block_on(watch.next()).unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
}

#[test]
fn a_gateway_that_stops_says_so_to_who_watches() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &[]);
    let client = Client::bare(gateway.grpc.unwrap());
    let mut watch = client.block_on(async { health(&client).watch(question("")).await.unwrap().into_inner() });
    assert_eq!(
        client.block_on(watch.next()).unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    gateway.signal("TERM");
    assert_eq!(
        client.block_on(watch.next()).unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert!(client.block_on(watch.next()).is_none(), "the last word");
}
