"""Schema migrations, forward only, one file each. They travel in the wheel; `gateway upgrade` runs them."""
