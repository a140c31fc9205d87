"""One purchase, from the first visit to the delivered parcel, made as a customer's browser would make it."""
