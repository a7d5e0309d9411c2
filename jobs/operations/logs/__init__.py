"""Log lines by the Elastic Common Schema: checks and types them, and keeps their index in OpenSearch up to date."""
