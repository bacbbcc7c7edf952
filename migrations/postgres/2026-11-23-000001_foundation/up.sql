-- Times are microseconds since 1970 UTC. Statuses are 1 PASS, 2 PENDING, 3 FAIL. Faces are 1 rest, 2 grpc, 3 cli.

CREATE TABLE accounts (
    id                 BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name               TEXT    COLLATE "C" NOT NULL UNIQUE,
    password_hash      TEXT    NOT NULL,
    -- Grows with every change of password, enabled or disabled: what was verified before no longer counts.
    credential_version BIGINT  NOT NULL,
    enabled            BOOLEAN NOT NULL,
    create_time        BIGINT  NOT NULL,
    update_time        BIGINT  NOT NULL
);

CREATE TABLE customers (
    id             BIGINT   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id     BIGINT   NOT NULL REFERENCES accounts (id),
    email_key      TEXT     COLLATE "C" NOT NULL,
    public_id      TEXT     NOT NULL,
    reference      TEXT     NOT NULL,
    -- The personal attributes, as one JSON record.
    profile        TEXT     NOT NULL,
    status         SMALLINT NOT NULL CHECK (status BETWEEN 1 AND 3),
    -- The number of rows that status_changes holds for the customer.
    status_version BIGINT   NOT NULL,
    -- Grows with every change of the row.
    revision       BIGINT   NOT NULL,
    create_time    BIGINT   NOT NULL,
    update_time    BIGINT   NOT NULL,
    UNIQUE (account_id, email_key)
) WITH (fillfactor = 80); -- room in the page for the next version of a row: a change of status touches no index

-- No foreign keys: the history outlives what it tells of.
CREATE TABLE status_changes (
    position    BIGINT   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  BIGINT   NOT NULL,
    customer_id BIGINT   NOT NULL,
    -- Dense from 1 for each customer.
    version     BIGINT   NOT NULL,
    -- Null when the customer was created.
    from_status SMALLINT CHECK (from_status BETWEEN 1 AND 3),
    to_status   SMALLINT NOT NULL CHECK (to_status BETWEEN 1 AND 3),
    actor       TEXT     NOT NULL,
    face        SMALLINT NOT NULL CHECK (face BETWEEN 1 AND 3),
    request_id  TEXT     NOT NULL,
    change_time BIGINT   NOT NULL,
    UNIQUE (customer_id, version)
);
