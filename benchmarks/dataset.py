"""Data of the benchmarks, generated in PostgreSQL: 10,000 users and events, with FAQs for the first 1,000 events."""

import psycopg

USER_COUNT = 10_000
EVENTS_WITH_FAQS_COUNT = 1_000
FAQS_PER_EVENT = 20

CALLER_ID = 5_000
"""Id of the current user of all requests; they own the event with the same id, which has no FAQs."""

_INSERT_USERS = """
    INSERT INTO users (email, password_hash, public_name, details, contact, avatar_url, is_profile_public, is_verified)
    SELECT 'user' || n || '@example.com', '!', 'User ' || n, repeat('Runs events. ', 8), 'phone ' || n,
           'https://example.com/avatars/' || n || '.png', true, true
    FROM generate_series(1, %(rows)s) n ORDER BY n
"""
_INSERT_EVENTS = """
    INSERT INTO events (identifier, name, starts_at, ends_at, timezone, state, privacy, owner_id, description,
                        owner_name, location_name, searchable_location_name, latitude, longitude, logo_url,
                        original_image_url, ticket_url, document_links)
    SELECT 'e' || lpad(to_hex(n), 7, '0'), 'Event ' || n, now() + n * interval '1 hour',
           now() + (n + 8) * interval '1 hour', 'Europe/Berlin', 'published', 'public', n,
           '<p>' || repeat('Talks, workshops and time to meet. ', 10) || '</p>', 'User ' || n, 'Hall ' || n %% 20,
           'Berlin', 52.52 + n / 1e5, 13.4 + n / 1e5, 'https://example.com/logos/' || n || '.png',
           'https://example.com/images/' || n || '.jpg', 'https://example.com/tickets/' || n,
           '[{"name": "Plan", "link": "https://example.com/plan.pdf"}]'
    FROM generate_series(1, %(rows)s) n ORDER BY n
"""
_INSERT_TEAMS = "INSERT INTO event_roles (event_id, user_id, role) SELECT id, owner_id, 'owner' FROM events"
_INSERT_FAQS = """
    INSERT INTO faqs (question, answer, position, event_id)
    SELECT 'Question ' || k || ' about event ' || n || '?', '<p>' || repeat('An answer. ', 8) || '</p>', k, n
    FROM generate_series(1, %(events)s) n, generate_series(1, %(each)s) k ORDER BY n, k
"""


def fill_tables(url: str) -> None:
    """Insert the data into the empty tables of this database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_INSERT_USERS, {"rows": USER_COUNT})
        connection.execute(_INSERT_EVENTS, {"rows": USER_COUNT})
        connection.execute(_INSERT_TEAMS)
        connection.execute(_INSERT_FAQS, {"events": EVENTS_WITH_FAQS_COUNT, "each": FAQS_PER_EVENT})
        connection.execute("VACUUM ANALYZE")


def replace_faqs(url: str, *, events: int, each: int) -> None:
    """Replace all FAQs by `each` FAQs for each of the first `events` events."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE faqs RESTART IDENTITY")
        connection.execute(_INSERT_FAQS, {"events": events, "each": each})
        connection.execute("VACUUM ANALYZE faqs")
