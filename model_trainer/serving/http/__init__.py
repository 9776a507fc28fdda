"""The HTTP interface of the endpoint: requests, answers, limits and the page."""
