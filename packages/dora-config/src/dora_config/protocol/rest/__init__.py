"""The REST API of the coordinator: paths, operations and their OpenAPI document."""
