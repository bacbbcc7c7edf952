//! `ListStatusChanges`: reads the history of a customer, or of the account.

use proto::{
    Reason, Refusal,
    v1::{ListStatusChangesRequest, ListStatusChangesResponse},
};
use store::{HistoryQuery, Scope, Whose};
use tonic::{Request, Response, Status};

use crate::{Service, convert};

/// How many changes a page has that names no number.
const PAGE: u32 = 100;

/// The most changes of a page.
const PAGE_LIMIT: u32 = 1_000;

/// The most characters of a public id; one that was made up here has 32.
const ID_LIMIT: usize = 64;

pub(crate) async fn answer(
    service: &Service,
    request: Request<ListStatusChangesRequest>,
) -> Result<Response<ListStatusChangesResponse>, Status> {
    let call = service.begin(&request)?;
    let input = check(request.into_inner());
    let (page, account) = service
        .perform(&call, Scope::Read, input, async |actor, input| {
            let Input { query, token, most } = input;
            let page = service
                .store
                .changes(actor.principal, query, token, most, call.deadline);
            Ok((page.await?, actor.account().to_owned()))
        })
        .await?;
    Ok(Response::new(ListStatusChangesResponse {
        changes: page
            .changes
            .into_iter()
            .map(|item| convert::feed_item(item, &account))
            .collect(),
        next_page_token: page.next.unwrap_or_default(),
    }))
}

#[derive(Clone)]
struct Input {
    query: HistoryQuery,
    token: Option<String>,
    most: u32,
}

fn check(request: ListStatusChangesRequest) -> Result<Input, Refusal> {
    let invalid = |field| Refusal::fields(Reason::InvalidField, [field]);
    let (email, id) = (request.email.trim(), request.customer_id.trim());
    let whose = match (email.is_empty(), id.is_empty()) {
        (true, true) => Whose::Account,
        (false, true) => Whose::Email(convert::email_key(email)?),
        (true, false) if id.len() <= ID_LIMIT && !id.contains(char::is_control) => Whose::Id(id.to_owned()),
        (_, false) => return Err(invalid("customer_id")),
    };
    let time = |time: Option<_>, field| time.map(|time| convert::time(time, field)).transpose();
    let most = match u32::try_from(request.page_size).map_err(|_| invalid("page_size"))? {
        0 => PAGE,
        size => size.min(PAGE_LIMIT),
    };
    Ok(Input {
        query: HistoryQuery {
            whose,
            since: time(request.start_time, "start_time")?,
            until: time(request.end_time, "end_time")?,
            latest_first: false,
        },
        token: Some(request.page_token).filter(|token| !token.is_empty()),
        most,
    })
}
