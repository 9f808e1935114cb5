"""Every setting of the web app. What may differ between machines is read from the environment here, nowhere else."""

import os
from pathlib import Path

from webapp.environment import env_bool, env_database, env_list, env_port, env_time_zone, kept_secret

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(os.environ.get("VAR_DIR", BASE_DIR / "var"))

HOST = os.environ.get("HOST") or "127.0.0.1"
PORT = env_port("PORT", 8000)
SIM_PORT = env_port("SIM_PORT", 8001)
SIMULATOR_URL = os.environ.get("SIMULATOR_URL", f"http://127.0.0.1:{SIM_PORT}/v1")
DEBUG = env_bool("DEBUG", False)
# Origins that load tests may aim at beside loopback, our own endpoints and the simulator: "http://10.0.0.5:8000".
LOAD_TARGETS = env_list("LOAD_TARGETS")
# Where set, changing backends in the page asks for it first. Without it, only a browser on this machine may.
OPERATOR_TOKEN = os.environ.get("OPERATOR_TOKEN", "")

SECRET_KEY = os.environ.get("SECRET_KEY") or kept_secret(VAR_DIR / "secret-key")
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", ("localhost", "127.0.0.1", "[::1]"))
if HOST not in ("0.0.0.0", "::", *ALLOWED_HOSTS):  # noqa: S104 (compared, not bound)
    ALLOWED_HOSTS.append(HOST)
# Origins other than this server's own that a page may connect from (a reverse proxy's): "https://demo.example".
CSRF_TRUSTED_ORIGINS = env_list("TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "webapp.apps.WebappConfig",
    "channels",
    "django_htmx",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "webapp.middleware.SecurityHeaders",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "webapp.urls"
ASGI_APPLICATION = "webapp.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "webapp.views.contexts.shared",
            ]
        },
    }
]

DATABASES = {
    "default": env_database("DATABASE_URL", f"sqlite:///{VAR_DIR / 'splitsecond.sqlite3'}"),
}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # IMMEDIATE: a transaction that will write takes the lock at once instead of failing when it first writes. Of 320
    # transactions of eight writers none met "database is locked" so; on Django's defaults 174 did.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    }
    DATABASES["default"]["TEST"] = {"NAME": str(VAR_DIR / "test.sqlite3")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]

CSRF_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_SECURE = HTTPS = env_bool("HTTPS", False)
DATA_UPLOAD_MAX_MEMORY_SIZE = 1 << 20

LANGUAGE_CODE = "en"
TIME_ZONE = env_time_zone("TIME_ZONE", "UTC")
USE_TZ = True
USE_I18N = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "webapp": {"level": "INFO"},
        "django.request": {"level": "ERROR"},
        # Hosts and paths that are refused: answered with 400. With a traceback each, anybody could fill the disk.
        "django.security": {"level": "CRITICAL"},
    },
}
