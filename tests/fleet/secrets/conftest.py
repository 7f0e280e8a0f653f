"""No test of this folder may let a secret value be seen."""

from __future__ import annotations

from tests.secret_watch import watched_secrets as watched_secrets
