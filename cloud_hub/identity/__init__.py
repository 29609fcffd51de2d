"""Who is who: the hub's certificate authority, the devices' certificates, and the tokens that they enrol with."""
