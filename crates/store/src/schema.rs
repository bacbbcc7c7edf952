//! The tables, as diesel knows them; migrations/ has what they are for.

diesel::table! {
    accounts (id) {
        id -> BigInt,
        name -> Text,
        password_hash -> Text,
        credential_version -> BigInt,
        enabled -> Bool,
        create_time -> BigInt,
        update_time -> BigInt,
    }
}

diesel::table! {
    api_tokens (id) {
        id -> BigInt,
        account_id -> BigInt,
        public_id -> Text,
        hash -> Binary,
        scopes -> SmallInt,
        label -> Text,
        create_time -> BigInt,
        expire_time -> Nullable<BigInt>,
        revoke_time -> Nullable<BigInt>,
        use_time -> Nullable<BigInt>,
    }
}

diesel::table! {
    customers (id) {
        id -> BigInt,
        account_id -> BigInt,
        email_key -> Text,
        public_id -> Text,
        reference -> Text,
        profile -> Binary,
        data_key -> Nullable<Binary>,
        status -> SmallInt,
        status_version -> BigInt,
        revision -> BigInt,
        create_time -> BigInt,
        update_time -> BigInt,
    }
}

diesel::table! {
    status_changes (position) {
        position -> BigInt,
        account_id -> BigInt,
        customer_id -> BigInt,
        version -> BigInt,
        from_status -> Nullable<SmallInt>,
        to_status -> SmallInt,
        actor -> Text,
        face -> SmallInt,
        request_id -> Text,
        change_time -> BigInt,
        kind -> SmallInt,
        reason -> Nullable<Text>,
        epoch -> BigInt,
        xid -> BigInt,
    }
}

diesel::table! {
    documents (customer_id, kind) {
        customer_id -> BigInt,
        kind -> SmallInt,
        content -> Binary,
        upload_time -> BigInt,
    }
}

diesel::table! {
    erasures (customer_id) {
        customer_id -> BigInt,
        account_id -> BigInt,
        public_id -> Text,
        actor -> Text,
        face -> SmallInt,
        request_id -> Text,
        erase_time -> BigInt,
    }
}

diesel::table! {
    encryption (id) {
        id -> Integer,
        state -> SmallInt,
        index_key -> Binary,
    }
}

diesel::table! {
    feed (id) {
        id -> Integer,
        name -> Text,
        epoch -> BigInt,
        server -> Text,
    }
}

diesel::table! {
    /// On PostgreSQL only.
    attempts (id) {
        id -> Binary,
        xid -> BigInt,
        lost -> Bool,
    }
}

diesel::table! {
    idempotency_keys (id) {
        id -> BigInt,
        account_id -> BigInt,
        key -> Text,
        content -> Binary,
        operation -> SmallInt,
        key_time -> BigInt,
        customer_id -> BigInt,
        created -> Bool,
        reference -> Text,
        profile -> Nullable<Binary>,
        status -> SmallInt,
        status_version -> BigInt,
        revision -> BigInt,
        update_time -> BigInt,
    }
}

diesel::table! {
    audit_blocks (id) {
        id -> BigInt,
        account_id -> BigInt,
        number -> BigInt,
        epoch -> BigInt,
        xid -> BigInt,
        position -> BigInt,
        entries -> Binary,
        hash -> Binary,
        seal_time -> BigInt,
    }
}

diesel::table! {
    webhooks (id) {
        id -> BigInt,
        account_id -> BigInt,
        public_id -> Text,
        url -> Text,
        secret -> Binary,
        old_secret -> Nullable<Binary>,
        old_secret_until -> BigInt,
        create_time -> BigInt,
        epoch -> BigInt,
        xid -> BigInt,
        position -> BigInt,
        lease_holder -> Text,
        lease_until -> BigInt,
        failures -> Integer,
        pause_until -> BigInt,
    }
}

diesel::table! {
    webhook_deliveries (id) {
        id -> BigInt,
        webhook_id -> BigInt,
        position -> BigInt,
        customer_id -> BigInt,
        attempts -> Integer,
        first_time -> BigInt,
        next_time -> BigInt,
        parked -> Bool,
        last_error -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(customers, documents);
diesel::allow_tables_to_appear_in_same_query!(accounts, api_tokens);
