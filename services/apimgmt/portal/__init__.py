"""The developer portal: pages for people beside the admin API, which they use with the same rights."""
