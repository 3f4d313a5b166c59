//! Text to [`JobFile`](crate::job_file::JobFile): the three forms.
