"""Who calls, and whose token opens what: the same for the emulators, the runner and nobody else. Clients know the names alone."""

import secrets

PEOPLE = ["megan@personalemail.com", "sam@personalemail.com"]
# Connected with a token that no emulator takes: their calls get the API's own 401.
GONE = "gone@personalemail.com"
TOKENS = {name: f"interop-{secrets.token_hex(16)}" for name in [*PEOPLE, GONE]}
LOGINS = {TOKENS[name]: name.split("@")[0] for name in PEOPLE}
