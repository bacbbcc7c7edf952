//! Why a request was refused: the one table that both faces, the API documents and the tests are made from.

use http::StatusCode;
use tonic::Code;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A required input is absent or empty.
    MissingInput,
    /// The email is there but is no address.
    InvalidEmail,
    /// The status is none of the three.
    InvalidStatus,
    /// A field has the wrong type, length or form.
    InvalidField,
    /// The body is no JSON object, or no message of the contract.
    MalformedBody,
    /// The service is none of those that exist.
    UnknownService,
    /// An idempotency key came again with other content.
    KeyReused,
    /// Unknown user, wrong password or disabled account; which of them is not said.
    BadCredentials,
    /// The API token that a call came with is not good for it.
    PermissionDenied,
    /// The account has no such customer.
    CustomerNotFound,
    /// Nothing is served at this path.
    UnknownPath,
    /// The path takes another method.
    MethodNotAllowed,
    /// Somebody else changed the status first.
    Conflict,
    /// The consumer of a stream took too long to read.
    TooSlow,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The deadline passed before there was an answer.
    DeadlineExceeded,
    /// The body is over the limit.
    BodyTooLarge,
    /// The body is encoded in a way that is not understood.
    UnsupportedEncoding,
    /// Too many requests of an account, or too many failed logins.
    Throttled,
    /// A queue is full, or too slow to wait in.
    Overloaded,
    /// The store is down, or the server is stopping.
    Unavailable,
    /// A defect of ours.
    Internal,
}

impl Reason {
    /// The domain of every `ErrorInfo`.
    pub const DOMAIN: &'static str = "dcams.storage";

    /// Every reason there is.
    pub const ALL: [Self; 22] = [
        Self::MissingInput,
        Self::InvalidEmail,
        Self::InvalidStatus,
        Self::InvalidField,
        Self::MalformedBody,
        Self::UnknownService,
        Self::KeyReused,
        Self::BadCredentials,
        Self::PermissionDenied,
        Self::CustomerNotFound,
        Self::UnknownPath,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::TooSlow,
        Self::BodyTimeout,
        Self::DeadlineExceeded,
        Self::BodyTooLarge,
        Self::UnsupportedEncoding,
        Self::Throttled,
        Self::Overloaded,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The row of the table: name on both wires, gRPC code, HTTP status, message of both faces.
    const fn row(self) -> (&'static str, Code, StatusCode, &'static str) {
        use Code as G;
        use StatusCode as H;
        match self {
            Self::MissingInput => (
                "MISSING_INPUT",
                G::InvalidArgument,
                H::BAD_REQUEST,
                "Missing a required input",
            ),
            Self::InvalidEmail => (
                "INVALID_EMAIL",
                G::InvalidArgument,
                H::BAD_REQUEST,
                "The email address is invalid",
            ),
            Self::InvalidStatus => (
                "INVALID_STATUS",
                G::InvalidArgument,
                H::BAD_REQUEST,
                "The status is invalid",
            ),
            Self::InvalidField => (
                "INVALID_FIELD",
                G::InvalidArgument,
                H::BAD_REQUEST,
                "The FIELD is invalid",
            ),
            Self::MalformedBody => (
                "MALFORMED_BODY",
                G::InvalidArgument,
                H::BAD_REQUEST,
                "The request body is not valid JSON",
            ),
            Self::UnknownService => (
                "UNKNOWN_SERVICE",
                G::InvalidArgument,
                H::BAD_REQUEST,
                "The service is unknown",
            ),
            Self::KeyReused => (
                "KEY_REUSED",
                G::InvalidArgument,
                H::BAD_REQUEST,
                "The idempotency key was already used",
            ),
            Self::BadCredentials => (
                "BAD_CREDENTIALS",
                G::Unauthenticated,
                H::UNAUTHORIZED,
                "Either your username or password is incorrect",
            ),
            Self::PermissionDenied => (
                "PERMISSION_DENIED",
                G::PermissionDenied,
                H::FORBIDDEN,
                "The token does not permit this",
            ),
            Self::CustomerNotFound => (
                "CUSTOMER_NOT_FOUND",
                G::NotFound,
                H::NOT_FOUND,
                "The email address was not found",
            ),
            Self::UnknownPath => (
                "UNKNOWN_PATH",
                G::Unimplemented,
                H::NOT_FOUND,
                "The resource was not found",
            ),
            Self::MethodNotAllowed => (
                "METHOD_NOT_ALLOWED",
                G::Unimplemented,
                H::METHOD_NOT_ALLOWED,
                "The method is not allowed",
            ),
            Self::Conflict => (
                "CONFLICT",
                G::Aborted,
                H::CONFLICT,
                "The status was changed by someone else",
            ),
            Self::TooSlow => ("TOO_SLOW", G::Aborted, H::CONFLICT, "The stream was not read in time"),
            Self::BodyTimeout => ("TIMEOUT", G::Cancelled, H::REQUEST_TIMEOUT, "The request timed out"),
            Self::DeadlineExceeded => (
                "TIMEOUT",
                G::DeadlineExceeded,
                H::GATEWAY_TIMEOUT,
                "The request timed out",
            ),
            Self::BodyTooLarge => (
                "BODY_TOO_LARGE",
                G::ResourceExhausted,
                H::PAYLOAD_TOO_LARGE,
                "The request body is too large",
            ),
            Self::UnsupportedEncoding => (
                "UNSUPPORTED_ENCODING",
                G::Unimplemented,
                H::UNSUPPORTED_MEDIA_TYPE,
                "The content encoding is not supported",
            ),
            Self::Throttled => (
                "THROTTLED",
                G::ResourceExhausted,
                H::TOO_MANY_REQUESTS,
                "Too many requests",
            ),
            Self::Overloaded => (
                "UNAVAILABLE",
                G::ResourceExhausted,
                H::SERVICE_UNAVAILABLE,
                "The service is unavailable",
            ),
            Self::Unavailable => (
                "UNAVAILABLE",
                G::Unavailable,
                H::SERVICE_UNAVAILABLE,
                "The service is unavailable",
            ),
            Self::Internal => ("INTERNAL", G::Internal, H::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }

    /// The name in `ErrorInfo.reason` and `X-Error-Reason`. Two reasons share a name where only the code differs.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The code on the gRPC face.
    pub const fn code(self) -> Code {
        self.row().1
    }

    /// The status on the REST face.
    pub const fn http_status(self) -> StatusCode {
        self.row().2
    }

    /// The message on both faces. `FIELD` stands for the name of the field at fault.
    pub const fn message(self) -> &'static str {
        self.row().3
    }

    /// Whether the same request may succeed a little later.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Overloaded | Self::Unavailable)
    }

    /// The reason behind a code and a name from the wire; for a name that is not ours, what the code alone says.
    pub fn from_wire(code: Code, name: Option<&str>) -> Self {
        Self::ALL
            .into_iter()
            .find(|reason| reason.code() == code && Some(reason.name()) == name)
            .unwrap_or(match code {
                Code::Unavailable => Self::Unavailable,
                Code::ResourceExhausted => Self::Overloaded,
                Code::DeadlineExceeded | Code::Cancelled => Self::DeadlineExceeded,
                _ => Self::Internal,
            })
    }
}
