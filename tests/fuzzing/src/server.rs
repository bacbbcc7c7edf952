//! A service on a store of its own, in this process, for as long as the process lives.

use std::{sync::LazyLock, time::Duration};

use axum::{Router, body::Body};
use credentials::Credentials;
use http::{Request, Response};
use secrecy::SecretString;
use store::{Authority, Email, Face, Location, Migrate, NewCustomer, Origin, Principal, Profile, Put, Settings, Store};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// The customer that is always there.
pub(crate) const EMAIL: &str = "test@veratad.com";

pub(crate) struct Server {
    pub(crate) runtime: Runtime,
    pub(crate) store: Store,
    pub(crate) principal: Principal,
    router: Router,
    _folder: TempDir,
}

/// With `USERNAME` and `PASSWORD`, who is never locked out.
pub(crate) static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let location: Location = format!("sqlite://{}", folder.path().join("dcams.db").display())
        .parse()
        .unwrap();
    let settings = Settings {
        // It refuses nothing because the machine is busy.
        queue_wait: Duration::from_secs(60),
        ..Settings::default()
    };
    let store = Store::open(&location, Migrate::Auto, &settings, None).unwrap();
    let principal = runtime.block_on(fill(&store));
    let login = credentials::Settings {
        failures_per_address: 0,
        failures_per_user: 0,
        hash_wait: Duration::from_secs(60),
        ..credentials::Settings::default()
    };
    let budget = proto::Budget::default();
    let service = grpc::service(
        store.clone(),
        Credentials::new(login),
        &grpc::Settings {
            budget: budget.clone(),
            deadline: Duration::from_secs(60),
            deadline_limit: Duration::from_secs(60),
            lag: Duration::from_secs(60),
            ..grpc::Settings::default()
        },
    );
    let settings = rest::Settings {
        handler_timeout: Duration::from_secs(60),
        ..rest::Settings::default()
    };
    let router = rest::router(
        service.client(),
        proto::Gate::default(),
        settings,
        budget,
        proto::Telemetry::default(),
    );
    drop(_inside);
    Server {
        runtime,
        store,
        principal,
        router,
        _folder: folder,
    }
});

impl Server {
    /// Sends a request to the facade.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// A time that no operation here is meant to meet.
pub(crate) fn deadline() -> std::time::Instant {
    std::time::Instant::now() + Duration::from_secs(60)
}

async fn fill(store: &Store) -> Principal {
    let hash = credentials::hash(&SecretString::from("PASSWORD")).unwrap();
    store
        .create_account(&"USERNAME".parse().unwrap(), hash, deadline())
        .await
        .unwrap();
    let principal = Principal {
        account: store.account("USERNAME", deadline()).await.unwrap().id,
        authority: Authority::Operator,
    };
    let put = Put {
        principal,
        new: NewCustomer {
            profile: Profile {
                first_name: "John".to_owned(),
                ..Profile::default()
            },
            ..NewCustomer::new(Email::parse(EMAIL).unwrap())
        },
        etag: None,
        key: None,
        origin: Origin {
            actor: "fuzz".to_owned(),
            face: Face::Cli,
            request_id: "fuzz".to_owned(),
        },
        hold: None,
    };
    store.put_customer(put, deadline()).await.unwrap();
    principal
}
