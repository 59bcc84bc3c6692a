"""The one tree of errors that a person is meant to read.

StocksError
├── SettingsError        a setting is missing or cannot be used
├── StackError           a server cannot be started or reached
├── InvalidTickerError   text that is no ticker
├── InvalidKeyError      text that is no key of a bronze object
├── PayloadError         a reply that cannot be turned into rows
└── QueryError           a statement that PostgreSQL refuses

Each message is one line that names the culprit and the mend; the command line prints it as it is.
"""


class StocksError(Exception):
    """Something a person can mend; the message says what and how."""


class SettingsError(StocksError):
    """A setting is missing or cannot be used."""


class StackError(StocksError):
    """A server cannot be started or reached."""


class InvalidTickerError(StocksError):
    """Text that is no ticker."""


class InvalidKeyError(StocksError):
    """Text that is no key of a bronze object."""


class PayloadError(StocksError):
    """A reply that cannot be turned into rows."""


class QueryError(StocksError):
    """A statement that PostgreSQL refuses, or that has nothing to show."""
