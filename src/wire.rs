#![doc = include_str!("wire/protocol.md")]
#![doc = "```text"]
#![doc = include_str!("wire/transcript.txt")]
#![doc = "```"]
#![doc = include_str!("wire/messages.md")]
#![doc = "```python"]
#![doc = include_str!("wire/client.py")]
#![doc = "```"]

#[cfg(test)]
mod tests;
