"""The dashboard at `/dashboard`: what the cache does, live, and a purge, for a tenant's admins."""
