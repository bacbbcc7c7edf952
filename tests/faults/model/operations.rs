//! What the model test asks of a store, and how that is drawn.
//!
//! An operation names what it works on by small numbers, so that it means something after whatever came before it: a sequence
//! of which a part is left out, as it is when a failing one is made shorter, is a sequence still.

use proptest::{collection::vec, option, prelude::*, sample::select};
use store::{Field, Status};

use crate::store::STATUSES;

/// How many accounts there are.
pub const ACCOUNTS: u8 = 2;

/// The addresses, each as it is written by different callers. The model knows by their place alone which are the same.
pub const ADDRESSES: [[&str; 3]; 12] = [
    ["ann@example.com", "Ann@Example.COM", " ann@EXAMPLE.com\t"],
    ["a.n+n@example.com", "A.N+N@example.com", "a.N+n@Example.Com"],
    ["an+n@example.com", "AN+N@example.com", "an+n@EXAMPLE.com"],
    [
        "josé@bücher.example",
        "JOSE\u{301}@BÜCHER.example",
        "josé@xn--bcher-kva.example",
    ],
    ["o'brien@example.ie", "O'Brien@example.ie", "o'brien@example.IE"],
    ["straße@example.de", "STRAßE@example.de", "straße@EXAMPLE.DE"],
    ["1@example.com", "1@Example.com", "1@example.COM"],
    ["2@example.com", "2@Example.com", "2@example.COM"],
    ["3@example.com", "3@Example.com", "3@example.COM"],
    ["4@example.com", "4@Example.com", "4@example.COM"],
    ["5@example.com", "5@Example.com", "5@example.COM"],
    ["6@example.com", "6@Example.com", "6@example.COM"],
];

/// What a text may be; the first one is none.
pub const TEXTS: [&str; 6] = [
    "",
    "a",
    "Zoë \"O'Brien\" \\ NULL; --",
    "日本語 🏳️‍🌈",
    "NULL",
    "a text that is as long as no other one of these is, and has a % and a _ and a ? and a $1 in it as well",
];

/// How many bytes an image may have; the first one is none.
pub const IMAGES: [usize; 4] = [0, 1, 700, 9_000];

/// The attributes that are texts; the reference is the last one.
pub const FIELDS: [Field; 9] = [
    Field::FirstName,
    Field::LastName,
    Field::Address,
    Field::City,
    Field::State,
    Field::Zip,
    Field::DateOfBirth,
    Field::Phone,
    Field::Reference,
];

/// What gives a caller its right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// The account's credentials as they are.
    Current,
    /// What was verified before they changed the last time.
    Former,
    Operator,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pub account: u8,
    pub right: Right,
}

/// An address: which one, and how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub number: u8,
    pub spelling: u8,
}

impl Address {
    pub fn written(self) -> &'static str {
        ADDRESSES[usize::from(self.number)][usize::from(self.spelling)]
    }
}

/// The etag that a change depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    Any,
    /// The one that the customer has.
    Current,
    /// The one before that.
    Former,
    Nonsense,
    /// What the two come to: a customer by its number in the model, and its revision.
    Of(usize, i64),
}

/// What is written of a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Numbers of [`TEXTS`], for [`FIELDS`].
    pub texts: [u8; 9],
    /// Numbers of [`IMAGES`].
    pub images: [u8; 2],
    pub status: Option<Status>,
    /// Which fields alone are written, and emptied where there is nothing: a bit for each of `FIELDS` and the images.
    pub mask: Option<u16>,
}

impl Attributes {
    /// Whether the mask names the field with that number, images behind the texts; none without a mask.
    pub fn masked(&self, number: usize) -> Option<bool> {
        self.mask.map(|mask| mask >> number & 1 == 1)
    }
}

/// Whose changes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Account,
    Email(Address),
    /// One of all customers that ever were, the accounts' own or not.
    Id(u8),
}

/// An operation. A `key` is an idempotency key.
#[derive(Clone, Debug)]
pub enum Op {
    Put {
        who: Who,
        email: Address,
        new: Attributes,
        tag: Tag,
        key: Option<u8>,
    },
    SetStatus {
        who: Who,
        email: Address,
        status: Status,
        tag: Tag,
        expects: Option<Status>,
        reason: Option<u8>,
        key: Option<u8>,
    },
    Erase {
        who: Who,
        email: Address,
        key: Option<u8>,
    },
    /// One of the earlier operations that had a key, as it was.
    Repeat(u8),
    Import {
        account: u8,
        new: Vec<(Address, Attributes)>,
    },
    Get {
        who: Who,
        email: Address,
    },
    Documents {
        who: Who,
        email: Address,
    },
    /// The last changes of a customer.
    History {
        who: Who,
        email: Address,
        limit: u8,
    },
    /// The status so many microseconds after one of the customer's changes.
    StatusAt {
        who: Who,
        email: Address,
        change: u8,
        offset: i8,
    },
    /// Changes, between those times at which two of the account's changes were made.
    Changes {
        who: Who,
        whose: Whose,
        since: Option<u8>,
        until: Option<u8>,
        latest_first: bool,
        page: u8,
    },
    /// The feed behind one of its rows, in pages.
    Feed {
        who: Who,
        after: Option<u8>,
        page: u8,
    },
    Customers {
        account: u8,
        page: u8,
    },
    Confirm {
        who: Who,
    },
    Account {
        account: u8,
    },
    SetPassword {
        account: u8,
    },
    SetEnabled {
        account: u8,
        enabled: bool,
    },
    CreateToken {
        account: u8,
    },
    RevokeToken {
        number: u8,
    },
    Tokens {
        account: u8,
    },
    ExpireDocuments,
    ExpireKeys,
    /// One of the two gateways closes the store, and another one opens it.
    Reopen,
}

impl Op {
    /// The customers that it may not share with another operation at the same time, if the order of the two is to be no
    /// matter; none for one that has to be alone.
    pub fn customers(&self) -> Option<Vec<(u8, u8)>> {
        match self {
            Self::Put { who, email, .. }
            | Self::SetStatus { who, email, .. }
            | Self::Erase { who, email, .. }
            | Self::Get { who, email }
            | Self::Documents { who, email }
            | Self::History { who, email, .. }
            | Self::StatusAt { who, email, .. } => Some(vec![(who.account, email.number)]),
            Self::Import { account, new } => Some(new.iter().map(|(email, _)| (*account, email.number)).collect()),
            _ => None,
        }
    }

    /// Who asks, where that is for the operation to say.
    pub fn who(&self) -> Option<Who> {
        match self {
            Self::Put { who, .. }
            | Self::SetStatus { who, .. }
            | Self::Erase { who, .. }
            | Self::Get { who, .. }
            | Self::Documents { who, .. }
            | Self::History { who, .. }
            | Self::StatusAt { who, .. }
            | Self::Changes { who, .. }
            | Self::Feed { who, .. }
            | Self::Confirm { who } => Some(*who),
            _ => None,
        }
    }

    /// Its idempotency key, with the account that it belongs to.
    pub fn key(&self) -> Option<(u8, u8)> {
        match self {
            Self::Put { who, key, .. } | Self::SetStatus { who, key, .. } | Self::Erase { who, key, .. } => {
                key.map(|key| (who.account, key))
            }
            _ => None,
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    let right = prop_oneof![40 => Just(Right::Current), 1 => Just(Right::Former), 4 => Just(Right::Operator)];
    (0..ACCOUNTS, right).prop_map(|(account, right)| Who { account, right })
}

fn email() -> impl Strategy<Value = Address> {
    (0..ADDRESSES.len() as u8, 0..3_u8).prop_map(|(number, spelling)| Address { number, spelling })
}

fn status() -> impl Strategy<Value = Status> {
    select(&STATUSES[..])
}

fn tag() -> impl Strategy<Value = Tag> {
    prop_oneof![6 => Just(Tag::Any), 2 => Just(Tag::Current), 1 => Just(Tag::Former), 1 => Just(Tag::Nonsense)]
}

/// So few that the same one comes again, with the same content or not.
fn key() -> impl Strategy<Value = Option<u8>> {
    option::weighted(0.3, 0..40_u8)
}

fn number_of(most: usize) -> impl Strategy<Value = u8> + Clone {
    prop_oneof![2 => Just(0), 1 => 0..most as u8]
}

fn attributes(mask: impl Strategy<Value = Option<u16>>) -> impl Strategy<Value = Attributes> {
    let (text, image) = (number_of(TEXTS.len()), number_of(IMAGES.len()));
    let texts = std::array::from_fn::<_, 9, _>(|_| text.clone());
    (texts, [image.clone(), image], option::weighted(0.3, status()), mask).prop_map(|(texts, images, status, mask)| {
        Attributes {
            texts,
            images,
            status,
            mask,
        }
    })
}

fn page() -> impl Strategy<Value = u8> {
    prop_oneof![1..6_u8, Just(200)]
}

fn op() -> impl Strategy<Value = Op> {
    let any_number = || option::weighted(0.4, any::<u8>());
    let whose = prop_oneof![
        Just(Whose::Account),
        email().prop_map(Whose::Email),
        any::<u8>().prop_map(Whose::Id)
    ];
    // An import writes what is there, and empties nothing.
    let imported = vec((email(), attributes(Just(None))), 1..5);
    prop_oneof![
        18 => (who(), email(), attributes(option::weighted(0.3, 0..1_u16 << 11)), tag(), key())
            .prop_map(|(who, email, new, tag, key)| Op::Put { who, email, new, tag, key }),
        24 => (who(), email(), status(), tag(), option::weighted(0.2, status()), option::weighted(0.3, 0..6_u8), key())
            .prop_map(|(who, email, status, tag, expects, reason, key)|
                Op::SetStatus { who, email, status, tag, expects, reason, key }),
        4 => (who(), email(), key()).prop_map(|(who, email, key)| Op::Erase { who, email, key }),
        6 => any::<u8>().prop_map(Op::Repeat),
        3 => (0..ACCOUNTS, imported).prop_map(|(account, new)| Op::Import { account, new }),
        8 => (who(), email()).prop_map(|(who, email)| Op::Get { who, email }),
        4 => (who(), email()).prop_map(|(who, email)| Op::Documents { who, email }),
        4 => (who(), email(), 1..6_u8).prop_map(|(who, email, limit)| Op::History { who, email, limit }),
        4 => (who(), email(), any::<u8>(), -1..2_i8)
            .prop_map(|(who, email, change, offset)| Op::StatusAt { who, email, change, offset }),
        3 => (who(), whose, any_number(), any_number(), any::<bool>(), page())
            .prop_map(|(who, whose, since, until, latest_first, page)|
                Op::Changes { who, whose, since, until, latest_first, page }),
        2 => (who(), any_number(), page()).prop_map(|(who, after, page)| Op::Feed { who, after, page }),
        1 => (0..ACCOUNTS, page()).prop_map(|(account, page)| Op::Customers { account, page }),
        1 => who().prop_map(|who| Op::Confirm { who }),
        1 => (0..ACCOUNTS).prop_map(|account| Op::Account { account }),
        1 => (0..ACCOUNTS).prop_map(|account| Op::SetPassword { account }),
        1 => (0..ACCOUNTS, prop_oneof![1 => Just(false), 8 => Just(true)])
            .prop_map(|(account, enabled)| Op::SetEnabled { account, enabled }),
        1 => (0..ACCOUNTS).prop_map(|account| Op::CreateToken { account }),
        1 => any::<u8>().prop_map(|number| Op::RevokeToken { number }),
        1 => (0..ACCOUNTS).prop_map(|account| Op::Tokens { account }),
        1 => Just(Op::ExpireDocuments),
        1 => Just(Op::ExpireKeys),
        1 => Just(Op::Reopen),
    ]
}

/// A sequence of at most so many steps, each of operations that are asked for at once.
pub fn sequences(most: usize) -> impl Strategy<Value = Vec<Vec<Op>>> {
    vec(vec(op(), 1..24), 1..most)
}
