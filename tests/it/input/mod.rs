//! What is sent to the queue by mistake or by malice, at each of its doors.

mod hostile;
