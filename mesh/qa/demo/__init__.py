"""One purchase, from the registration to the delivered parcel, through the same API as a browser."""
