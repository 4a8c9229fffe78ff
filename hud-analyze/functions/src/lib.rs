//! What SQL lacks for questions about a session, as functions of DataFusion.
