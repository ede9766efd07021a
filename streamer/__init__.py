"""The live server: peers, sessions, media clock, scheduler, HTTP and WebSocket API, command line."""
