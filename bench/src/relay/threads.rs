//! The relay of threads: cut-through. Bytes go on as they arrive, with the destination locked until the frame is whole.
//!
//! A sender that stalls within a frame blocks its destination, so this is a ceiling, not a product.

use super::{HEADER, parse};
use anyhow::Result;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, RwLock};

const READ: usize = 256 << 10;

type Routes = Arc<RwLock<HashMap<u32, Arc<Mutex<TcpStream>>>>>;

pub fn serve(listener: &TcpListener) -> Result<()> {
    let routes = Routes::default();
    loop {
        let (stream, _) = listener.accept()?;
        let routes = routes.clone();
        std::thread::spawn(move || forward(stream, &routes));
    }
}

fn forward(mut stream: TcpStream, routes: &Routes) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut hello = [0; HEADER];
    stream.read_exact(&mut hello)?;
    let (me, _) = parse(&hello).expect("a whole header");
    let mut own = stream.try_clone()?;
    own.write_all(&hello)?;
    routes
        .write()
        .expect("no holder panics")
        .insert(me, Arc::new(Mutex::new(own)));
    let mut known: HashMap<u32, Arc<Mutex<TcpStream>>> = HashMap::new();
    let mut buffer = vec![0; READ];
    let (mut start, mut end) = (0, 0);
    loop {
        let Some((to, length)) = parse(&buffer[start..end]) else {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            end += read(&mut stream, &mut buffer[end..])?;
            continue;
        };
        let route = match known.entry(to) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let route = routes.read().expect("no holder panics").get(&to).cloned();
                new.insert(route.ok_or(io::ErrorKind::NotFound)?)
            }
        };
        let mut destination = route.lock().map_err(|_| io::ErrorKind::BrokenPipe)?;
        let mut rest = HEADER + length;
        loop {
            let piece = rest.min(end - start);
            destination.write_all(&buffer[start..start + piece])?;
            (start, rest) = (start + piece, rest - piece);
            if rest == 0 {
                break;
            }
            (start, end) = (0, read(&mut stream, &mut buffer)?);
        }
    }
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}
