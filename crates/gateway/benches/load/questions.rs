//! What a load asks for, and what the replies must be.

use std::ops::Range;

use prost::Message;
use proto::v1::{GetStatusRequest, Status, UpdateStatusRequest};

use super::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, call, frame};
use crate::support::post;

pub(crate) const USER: &str = "bench";
pub(crate) const PASSWORD: &str = "bench password";

/// Of a mixed load, one request in so many is a change.
const CHANGE_ONE_IN: usize = 10;

/// The statuses that a customer is given one after the other. It begins with the last.
const STATUSES: [Status; 3] = [Status::Pass, Status::Pending, Status::Fail];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    Rest,
    Grpc,
}

/// What is asked for. No two requests that change a customer set the same status: each one writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Changes,
    Reads,
    /// Nine reads, and a change.
    Mixed,
}

/// A request, and its reply.
#[derive(Clone)]
pub(crate) enum Exchange {
    /// The reply is told by its end: the empty line and the body.
    Rest { request: Vec<u8>, end: Vec<u8> },
    /// The frames of a call, as of stream 0, and what the customer must be in the answer.
    Grpc {
        request: Vec<u8>,
        reference: String,
        status: Status,
    },
}

/// Who asks over one connection. It goes on where it has stopped.
pub(crate) enum Client {
    /// About customers of its own.
    About {
        face: Face,
        asks: Asks,
        customers: Own,
        requests: usize,
        changes: usize,
    },
    /// The same again and again.
    Repeating { exchanges: Vec<Exchange>, next: usize },
}

/// The customers of a client: every so-manieth from the first on, in an order that jumps about.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    first: usize,
    every: usize,
    count: usize,
    jump: usize,
}

impl Own {
    fn new(first: usize, every: usize, count: usize) -> Self {
        // Having no divisor in common with the count, it comes to each customer before it comes to one again.
        let mut jump = count * 5 / 8 + 1;
        while common_divisor(jump, count) != 1 {
            jump += 1;
        }
        Self {
            first,
            every,
            count,
            jump,
        }
    }

    fn at(&self, place: usize) -> usize {
        self.first + self.every * (place % self.count * self.jump % self.count)
    }
}

fn common_divisor(one: usize, other: usize) -> usize {
    if other == 0 {
        one
    } else {
        common_divisor(other, one % other)
    }
}

impl Client {
    /// So many clients, who share these customers.
    pub(crate) fn group(face: Face, asks: Asks, customers: Range<usize>, clients: usize) -> Vec<Self> {
        let count = customers.len() / clients;
        assert!(count > 1, "too few customers for {clients} clients");
        (0..clients)
            .map(|number| Self::About {
                face,
                asks,
                customers: Own::new(customers.start + number, clients, count),
                requests: 0,
                changes: 0,
            })
            .collect()
    }

    /// So many clients that ask the same.
    pub(crate) fn repeating(exchanges: &[Exchange], clients: usize) -> Vec<Self> {
        (0..clients)
            .map(|next| Self::Repeating {
                exchanges: exchanges.to_vec(),
                next,
            })
            .collect()
    }

    pub(super) fn face(&self) -> Face {
        match self {
            Self::About { face, .. } => *face,
            Self::Repeating { exchanges, .. } => match exchanges[0] {
                Exchange::Rest { .. } => Face::Rest,
                Exchange::Grpc { .. } => Face::Grpc,
            },
        }
    }

    /// The next request.
    pub(super) fn ask(&mut self) -> Exchange {
        match self {
            Self::Repeating { exchanges, next } => {
                *next += 1;
                exchanges[*next % exchanges.len()].clone()
            }
            Self::About {
                face,
                asks,
                customers,
                requests,
                changes,
            } => {
                *requests += 1;
                let is_change = match asks {
                    Asks::Changes => true,
                    Asks::Reads => false,
                    Asks::Mixed => requests.is_multiple_of(CHANGE_ONE_IN),
                };
                let (sweep, place) = (*changes / customers.count, *changes % customers.count);
                if is_change {
                    *changes += 1;
                    return update(*face, customers.at(place), STATUSES[sweep % STATUSES.len()]);
                }
                // Those before this place have been changed once more.
                let read = *requests % customers.count;
                let sweeps = sweep + usize::from(read < place);
                let status = STATUSES[(sweeps + STATUSES.len() - 1) % STATUSES.len()];
                read_status(*face, customers.at(read), status)
            }
        }
    }
}

fn update(face: Face, customer: usize, status: Status) -> Exchange {
    match face {
        Face::Rest => rest_update(customer, legacy_name(status)),
        Face::Grpc => grpc_update(customer, status),
    }
}

fn read_status(face: Face, customer: usize, status: Status) -> Exchange {
    let email = email(customer);
    match face {
        Face::Rest => {
            let body = format!(
                r#"{{"user":"{USER}","pass":"{PASSWORD}","service":"getStatus","target":{{"email":"{email}"}}}}"#
            );
            let reply = format!(
                r#"{{"result":"Success","reference":"{customer}","status":"{}","target":{{{}}}}}"#,
                legacy_name(status),
                attributes(customer)
            );
            rest(&body, &reply)
        }
        Face::Grpc => grpc("GetStatus", &GetStatusRequest { email }, customer, status),
    }
}

/// `updateStatus` of a customer that was made by [`csv`].
pub(crate) fn rest_update(customer: usize, status: &str) -> Exchange {
    let body = format!(
        r#"{{"user":"{USER}","pass":"{PASSWORD}","service":"updateStatus","target":{{"email":"{}","status":"{status}"}}}}"#,
        email(customer)
    );
    rest(&body, &legacy_reply(customer, status))
}

/// `UpdateStatus` of such a customer.
pub(crate) fn grpc_update(customer: usize, status: Status) -> Exchange {
    let message = UpdateStatusRequest {
        email: email(customer),
        status: status.into(),
        ..UpdateStatusRequest::default()
    };
    grpc("UpdateStatus", &message, customer, status)
}

/// The reply to `updateStatus`.
pub(crate) fn legacy_reply(customer: usize, status: &str) -> String {
    format!(
        r#"{{"result":"Success","reference":"{customer}","target":{{{},"status":"{status}"}}}}"#,
        attributes(customer)
    )
}

fn rest(body: &str, reply: &str) -> Exchange {
    Exchange::Rest {
        request: post(body.as_bytes()),
        end: format!("\r\n\r\n{reply}").into_bytes(),
    }
}

fn grpc(method: &str, message: &impl Message, customer: usize, status: Status) -> Exchange {
    let length = u32::try_from(message.encoded_len()).unwrap();
    let mut data = vec![0];
    data.extend(length.to_be_bytes());
    message.encode(&mut data).unwrap();
    let mut request = frame(HEADERS, END_HEADERS, 0, &call(method, &format!("{USER}:{PASSWORD}")));
    request.extend(frame(DATA, END_STREAM, 0, &data));
    Exchange::Grpc {
        request,
        reference: customer.to_string(),
        status,
    }
}

fn email(customer: usize) -> String {
    format!("customer{customer}@example.com")
}

fn attributes(customer: usize) -> String {
    format!(
        r#""fn":"John","ln":"Smith","addr":"123 Main St","city":"Stratford","state":"CT","zip":"06614","dob":"19700101","email":"{}","phone":"2015106000""#,
        email(customer)
    )
}

fn legacy_name(status: Status) -> &'static str {
    match status {
        Status::Pass => "PASS",
        Status::Pending => "PENDING",
        Status::Fail | Status::Unspecified => "FAIL",
    }
}

/// A file of these customers, for the account [`USER`].
pub(crate) fn csv(customers: usize) -> String {
    let head = "email,fn,ln,addr,city,state,zip,dob,phone,reference,status\n".to_owned();
    (0..customers).fold(head, |rows, number| {
        rows + &format!(
            "{},John,Smith,123 Main St,Stratford,CT,06614,19700101,2015106000,{number},FAIL\n",
            email(number)
        )
    })
}
