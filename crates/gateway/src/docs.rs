//! The documents of the API on the ops listener: OpenAPI for programs, Swagger UI for people, who can send calls from it.

use std::io::Read;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
        VARY, X_CONTENT_TYPE_OPTIONS,
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where the document is.
const DOCUMENT: &str = "/openapi.json";

/// What the document says of the JSON endpoint.
pub(crate) const ENDPOINT: &str = "The JSON endpoint";

/// What it says of the JSON endpoint beside the pages.
const HERE: &str = "The same endpoint on the listener of these pages: a browser that shows them sends to no other";

/// What the pages may load, and send to: what is here, and the icons and styles that they have in themselves. No other page
/// may show them in a frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// The most bytes of a page. They come out of this program; the largest has 1.5 MB.
const PAGE: usize = 16 * 1024 * 1024;

/// What is documented: the face at `address`, and if these pages can send to it, that it is here too.
pub(crate) fn described(
    address: String,
    can_send: bool,
    settings: rest::Settings,
    image_limit: usize,
) -> rest::Described {
    let here = can_send.then(|| rest::Server {
        url: "/".to_owned(),
        note: HERE,
    });
    let there = rest::Server {
        url: address,
        note: ENDPOINT,
    };
    rest::Described {
        servers: here.into_iter().chain([there]).collect(),
        settings,
        image_limit,
    }
}

/// `/openapi.json`: the document. `/docs`: Swagger UI, out of this program, which loads nothing from elsewhere. With
/// `facade`, the JSON endpoint at its own path: the pages can send to the listener that they come from and to no other,
/// since the endpoint tells no browser to let pages of other origins in.
pub(crate) fn router(openapi: String, facade: Option<Router>) -> Router {
    let openapi = Bytes::from(openapi);
    let config = Config::from(DOCUMENT)
        // By default a badge asks a server of swagger.io about the document.
        .validator_url("none")
        .doc_expansion("full");
    let config = match facade {
        Some(_) => config.supported_submit_methods(["post"]),
        None => config.supported_submit_methods([""; 0]),
    };
    let pages: Router = SwaggerUi::new("/docs").config(config).into();
    let mut router = Router::new()
        .route(
            DOCUMENT,
            get(async move || ([(CONTENT_TYPE, "application/json")], openapi.clone())),
        )
        .merge(pages.layer(middleware::from_fn(page)));
    if let Some(facade) = facade {
        for path in rest::PATHS {
            // A router may not be nested at a path that it has itself.
            router = router.route_service(path, facade.clone().into_service::<Body>());
        }
    }
    router
}

/// Puts the policy on a page, and unpacks it for who cannot: the pages are there in gzip alone.
async fn page(request: Request, next: Next) -> Response {
    let takes_gzip = takes_gzip(request.headers());
    let mut response = next.run(request).await;
    if !takes_gzip && response.headers().contains_key(CONTENT_ENCODING) {
        response = unpacked(response).await;
    }
    let headers = response.headers_mut();
    let fixed: [(HeaderName, HeaderValue); 4] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (VARY, HeaderValue::from_static("accept-encoding")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    headers.extend(fixed);
    response
}

/// Whether a client says that it takes gzip.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings
        .map(|coding| coding.split(';').map(str::trim).collect::<Vec<_>>())
        .any(|coding| match &*coding {
            [name] => name.eq_ignore_ascii_case("gzip") || *name == "*",
            [name, weight, ..] => {
                let is_refused = weight
                    .split_once('=')
                    .is_some_and(|(_, weight)| weight.trim().parse() == Ok(0.0_f32));
                (name.eq_ignore_ascii_case("gzip") || *name == "*") && !is_refused
            }
            [] => false,
        })
}

async fn unpacked(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let mut page = Vec::new();
    let packed = to_bytes(body, PAGE).await.unwrap_or_default();
    // What is packed is in this program, and no bigger.
    if GzDecoder::new(&*packed)
        .take(PAGE as u64)
        .read_to_end(&mut page)
        .is_err()
    {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    head.headers.remove(CONTENT_ENCODING);
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_say_that_they_take_it() {
        for (header, takes) in [
            (None, false),
            (Some(""), false),
            (Some("identity"), false),
            (Some("gzip"), true),
            (Some("br, GZIP;q=0.5"), true),
            (Some("gzip;q=0, identity"), false),
            (Some("gzip; q=0.000"), false),
            (Some("*"), true),
        ] {
            let headers = header.map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value)));
            assert_eq!(takes_gzip(&headers.into_iter().collect()), takes, "{header:?}");
        }
    }
}
