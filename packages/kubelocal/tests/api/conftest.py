from api_client import client

__all__ = ["client"]
